@needs.user-unit.pipewire.service @needs.user-unit.wireplumber.service @needs.user
Feature: Sound
  A session has a sound server, even where there are no loudspeakers: programs hang or are silent without one.

  Background:
    Given a user with a session

  Scenario: The sound server runs
    When I start the user unit pipewire.service
    Then the user unit pipewire.service is active
    And the user unit wireplumber.service is active within 30 seconds

  Scenario Outline: The sound server logs no errors: <unit>
    Then the journal of the user unit <unit> with priority err or worse is empty

    Examples:
      | unit                |
      | pipewire.service    |
      | wireplumber.service |
