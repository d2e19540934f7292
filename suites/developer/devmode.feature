Feature: Developer mode
  A Bluefin is made one for developers by a recipe of ujust, or by bctl, which comes with Homebrew.

  Background:
    Given a user

  @image.dx @needs.ujust:devmode
  Scenario: An image for developers does not offer to become one
    # The recipe asks by gum, whose place a program takes that says no to everything.
    When I run the script as the user
      """
      set -e
      folder=$(mktemp -d)
      trap 'rm -r "$folder"' EXIT
      printf '#!/bin/sh\necho "asked: $*"\nexit 1\n' >"$folder/gum"
      chmod 755 "$folder/gum"
      PATH=$folder:$PATH
      ujust devmode
      """
    Then it succeeds
    And the output does not match /(?i)enable developer mode/

  @needs.file:/home/linuxbrew/.linuxbrew/bin/bctl
  Scenario: Bluefin's control program tells what it can do
    When I run `/home/linuxbrew/.linuxbrew/bin/bctl --help` as the user
    Then it succeeds
    And the output contains each of
      | command |
      | status  |
      | update  |
      | devmode |

  @needs.file:/home/linuxbrew/.linuxbrew/bin/bctl
  Scenario: Bluefin's control program tells the state of the system
    When I run `/home/linuxbrew/.linuxbrew/bin/bctl status` as the user
    Then it succeeds
    And the output is not empty

  @needs.file:/home/linuxbrew/.linuxbrew/bin/bctl @needs.network
  Scenario: Bluefin's control program looks for updates without making any
    When I run `/home/linuxbrew/.linuxbrew/bin/bctl update --check` as the user within 300 seconds
    Then the exit status is 0 or 1
    And the output is not empty
    And the error output does not contain "Traceback"
