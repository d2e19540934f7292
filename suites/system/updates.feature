Feature: Updates
  An image-based system lives on its updates: who built it says where they come from, and what looks for them works.

  @needs.deployment @image.bluefin @image.dakota
  Scenario: A Bluefin is updated from its projects' registry
    Then the booted deployment comes from an image matching /^ghcr\.io/(projectbluefin|ublue-os)//
    And the booted deployment has a digest

  @image.bluefin
  Scenario: The version of a Bluefin is a number
    Then os-release has VERSION_ID matching /^\d+(\.\d+)*$/

  @needs.deployment @needs.program.bootc @needs.network
  Scenario: bootc can look for an update
    When I run `bootc upgrade --check` within 300 seconds
    Then the exit status is 0 or 1
    And the error output does not contain "panicked"

  @needs.unit.uupd.service
  Scenario: The unit of uupd can be started
    When I run `systemd-analyze verify uupd.service`
    Then it succeeds

  @needs.program.uupd @needs.deployment @needs.network
  Scenario: uupd can look for an update
    When I run `uupd update-check` within 300 seconds
    Then it succeeds
    And the output matches /[Uu]pdates? [Aa]vailable/

  @needs.unit.greenboot-healthcheck.service
  Scenario: greenboot found this boot to be good
    Then the unit greenboot-healthcheck.service ran with the result success
