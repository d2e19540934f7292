@not.with_planet=Mars
Feature: For other planets

  Scenario: One
    Then it is 4
