@bad_feature_hook @fixture.browser
Feature: The hook of the feature fails

  Scenario: One
    Given the number 3

  Scenario: Two
    Given the number 3
