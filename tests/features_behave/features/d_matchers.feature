Feature: Matchers

  Scenario: Cardinality
    Then these are numbers: 1, 2, 3
    And this may be a number:

  Scenario: Regular expressions
    Then this matches well
    And this matches
    Given an old expression with 12

  Scenario: Cucumber expressions
    Then 2 dogs eat "fish"

  Scenario: Cucumber expressions that fail
    Then 2 cats eat "fish"

  Scenario: Coroutines
    When 1 seconds pass
    Then it is 1

  Scenario: A coroutine fails
    When 1 seconds pass
    And a coroutine fails
