@whole
Feature: Rules

  Background:
    Given the number 3

  Scenario: Before the rules
    Then it is 3
    And the value of the layer feature is seen

  @ruled
  Rule: With a background
    Background:
      Given the number 4

    @inner
    Scenario: In a rule
      Then it is 4
      And the value of the layer rule is seen
      And tags are inner,ruled,whole

    Scenario: Fails in a rule
      Then it is 3

    Scenario Outline: In a rule <n>
      Given the number <n>
      Then it is 1

      Examples:
        | n |
        | 1 |
        | 2 |

  Rule: Without
    Example: After another rule
      Then it is 3
