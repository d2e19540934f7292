@needs.program.chairlift
Feature: ChairLift
  Bluefin's program for the system itself: what it may do as root, it does by a helper that polkit asks for.

  Scenario: ChairLift can be asked what it would do
    Given a user
    When I run `chairlift --help` as the user
    Then it succeeds
    And the output contains "--dry-run"

  Scenario Outline: polkit knows who may <action>
    Then the polkit action io.projectbluefin.chairlift.ublue.<action> exists

    Examples:
      | action         |
      | channel-switch |
      | restart        |
      | rollback       |

  Scenario: ChairLift has its settings
    Then the file /usr/share/chairlift/config.yml is valid YAML
    And the file /usr/share/chairlift/config.yml is not empty

  @needs.program.desktop-file-validate
  Scenario: ChairLift is among the applications
    Then the desktop entry io.projectbluefin.chairlift exists
    And the desktop entry io.projectbluefin.chairlift is valid
