@needs.deployment
Feature: The image that was booted
  Which image it is can be told, so that two machines can be compared, and an update be noticed (bootc-status(8)).

  Scenario: The booted image has a digest
    Then the booted deployment has a digest
