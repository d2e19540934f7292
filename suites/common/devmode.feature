@needs.command:PATH=$PATH:/home/linuxbrew/.linuxbrew/bin%20command%20-v%20bctl
Feature: Developer mode
  Bluefin's control program gives people the groups and the programs that development takes, and takes them back.

  Scenario: Developer mode can be switched on and off
    When I run `PATH=$PATH:/home/linuxbrew/.linuxbrew/bin; bctl devmode --help`
    Then it succeeds
    And the output contains each of
      | option    |
      | --enable  |
      | --disable |

  Scenario: Developer mode that is off is left alone
    Given a user
    When I run `PATH=$PATH:/home/linuxbrew/.linuxbrew/bin; bctl devmode --disable` as the user
    Then it succeeds
    And the output contains "Developer mode is already inactive"

  # It installs programs, too. Root is not asked who they are, and the variable says whom the groups are for.
  @needs.network @needs.brew
  Scenario: Developer mode brings groups
    Given the user pytest-bootc
    When I run `export PATH=$PATH:/home/linuxbrew/.linuxbrew/bin USER=pytest-bootc; bctl devmode --enable` within 900 seconds
    Then it succeeds
    When I run `id -nG pytest-bootc`
    Then it succeeds
    And the output matches /\b(docker|incus-admin|libvirt|dialout)\b/
