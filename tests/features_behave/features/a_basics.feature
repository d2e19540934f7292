@whole
Feature: Basics
  What every feature uses.

  Background:
    Given the number 3

  @first
  Scenario: Passes
    Then it is 3
    And no row is active
    And tags are first,whole

  Scenario: Fails
    Then it is 4
    And it is 3

  Scenario: Breaks
    When KeyError is raised
    Then it is 3

  Scenario: Undefined
    When nobody knows what
    Then it is 3

  Scenario: Nothing is left of another scenario
    Then the value of the layer feature is seen
    And it is 3

  @goes_on
  Scenario: Goes on after a failure
    Then it is 4
    When KeyError is raised
    Then it is 3

  Scenario: Tables and texts
    Given a table
      | name | size |
      | one  | 1    |
      | two  | 22   |
    Then row 2 is two of 22
    Given a text
      """
      three short words
      """
    Then it has 3 words

  Scenario: Steps within steps
    When other steps run
    Then it is 4

  Scenario: A step within fails
    When a step within fails

  Scenario: A step within is undefined
    When a step within is undefined

  Scenario: A type refuses
    Then the colour is red
    And the colour is blue

  Scenario: Pending
    Given something is pending

  @wip
  Scenario: Pending and in work
    Given something is pending
    Then it is 3

  Scenario: Skips itself
    When the scenario is skipped
    Then it is 4

  @left_out
  Scenario: Left out by the settings
    Then it is 4

  Scenario: Masks
    When a value is masked
    Then it is 3

  Scenario: Userdata
    Then the userdata say Mars

  Scenario: Captured output
    Given some output
    Then the output was captured

  Scenario: Modules
    Then modules beside the steps are there
