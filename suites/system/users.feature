Feature: What users may do
  Some of what everybody does takes rights that an image gives by a file's capability or by a setting.

  @needs.program.ping
  Scenario: Users can ping
    Given a user
    When I run `ping -c 1 -W 5 127.0.0.1` as the user
    Then it succeeds
    And the output contains "1 received"

  @needs.unit.systemd-homed.service
  Scenario: Homes of systemd-homed can be listed
    Then the unit systemd-homed.service is active
    When I run `homectl list --no-pager`
    Then it succeeds
    And the journal of the unit systemd-homed.service with priority err or worse is empty
