@image.dakota
Feature: Dakota brings what its people expect of it
  Scenario Outline: <program> is there
    Given a user
    Then the program <program> tells its version to the user

    Examples:
      | program   |
      | distrobox |
      | ghostty   |

  Scenario: Homebrew is there
    Given a user
    When I run `/home/linuxbrew/.linuxbrew/bin/brew --version` as the user within 120 seconds
    Then it succeeds
    And the output matches /^Homebrew \d+\.\d+/

  # The defaults of its extensions are in dconf, each below a folder of the extension's own.
  Scenario Outline: <extension> has the setting <key>
    When I run `dconf dump /org/gnome/shell/extensions/`
    Then it succeeds
    And the output matches /^<key>=<value>$/

    Examples:
      | extension           | key                   | value                   |
      | BudsLink Companion  | level-indicator-color | 0                       |
      | Custom Command List | menuicon              | 'ublue-logo-symbolic'   |
      | Custom Command List | menuoptions-setting   | 2                       |
      | Syncthing Toggle    | start-stop-only       | true                    |
      | Tiling Shell        | show-indicator        | false                   |
