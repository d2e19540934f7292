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

  Scenario: sudo is the one that is written in Rust
    When I run `/usr/bin/sudo --version 2>&1`
    Then it succeeds
    And the output contains "sudo-rs"
    And the file /usr/bin/sudo has the mode 4755
    And the file /usr/bin/sudo belongs to root:root

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
