@skipped_by_hook
Feature: Skipped by a hook

  Scenario: One
    Then it is 4

  Rule: A rule
    Scenario: Two
      Then it is 4
