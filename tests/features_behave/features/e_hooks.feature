Feature: Hooks

  Scenario: A bad hook before a step
    Given a bad hook before
    Given the number 3

  Scenario: A bad hook after a step
    Given a bad hook after
    Given the number 3

  @bad_before_scenario
  Scenario: A bad hook before the scenario
    Given the number 3

  @bad_before_tag @another
  Scenario: A bad hook before a tag
    Given the number 3

  @bad_after_scenario
  Scenario: A bad hook after the scenario
    Given the number 3

  @bad_after_tag @another
  Scenario: A bad hook after a tag
    Given the number 3

  @bad_cleanup
  Scenario: A bad cleanup
    Given the number 3

  @bad_cleanup
  Scenario: A failure and a bad cleanup
    Given the number 3
    Then it is 4

  @fixture.browser
  Scenario: A fixture for a scenario
    Then the browser is chrome

  @fixture.simple
  Scenario: The browser is the other one again
    Then the browser is firefox

  @fixture.half
  Scenario: A fixture that cannot be made
    Then the browser is firefox

  @skipped_by_hook
  Scenario: Skipped by a hook
    Then the browser is none

  @use.with_planet=Mars
  Scenario: An active tag that holds
    Then the browser is firefox

  @use.with_planet=Venus
  Scenario: An active tag that does not hold
    Then the browser is none
