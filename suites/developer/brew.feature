Feature: Homebrew
  What an image has not, people install with Homebrew: into a folder of its own, without root (brew(1)).

  Background:
    Given a user

  @needs.unit.brew-setup.service
  Scenario: Homebrew was unpacked at the first boot
    Then the unit brew-setup.service has not failed
    And the file /home/linuxbrew/.linuxbrew/bin/brew is executable

  @needs.brew
  Scenario: The user's shell finds brew
    When I run `bash -lic 'command -v brew'` as the user
    Then it succeeds
    And the output contains "/home/linuxbrew/.linuxbrew/bin/brew"

  @needs.brew
  Scenario: Homebrew finds nothing wrong with itself
    # 1: there are warnings, of which some concern what an image has on purpose.
    When I run `/home/linuxbrew/.linuxbrew/bin/brew doctor` as the user within 300 seconds
    Then the exit status is 0 or 1
    And the output does not match /^Error/
    And the error output does not match /^Error/

  @needs.brew @needs.network
  Scenario: A Brewfile is installed, and once only
    Given the file /tmp/pytest-bootc.Brewfile with the text
      """
      brew "jq"
      """
    When I run `/home/linuxbrew/.linuxbrew/bin/brew bundle --file=/tmp/pytest-bootc.Brewfile` as the user within 900 seconds
    Then it succeeds
    And the file /home/linuxbrew/.linuxbrew/bin/jq is executable
    When I run `/home/linuxbrew/.linuxbrew/bin/brew bundle --file=/tmp/pytest-bootc.Brewfile` as the user within 900 seconds
    Then it succeeds
    And the output contains "Using jq"
    And the output does not match /Installing|Upgrading/
