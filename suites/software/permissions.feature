@needs.program.flatpak
Feature: What applications may do
  Users give rights to applications and take them away (flatpak-override(1)), and answers to an application's requests
  are kept in a store (flatpak-permissions(1)). It is tried with the id of an application that nobody has.

  Background:
    Given a user with a session

  Scenario Outline: An override is kept: <option>
    When I run the script as the user
      """
      set -e
      trap 'flatpak override --user --reset org.example.PytestBootc' EXIT
      flatpak override --user <option> org.example.PytestBootc
      flatpak override --user --show org.example.PytestBootc
      """
    Then it succeeds
    And the output contains "<line>"

    Examples:
      | option                       | line                         |
      | --filesystem=xdg-download:ro | filesystems=xdg-download:ro; |
      | --socket=wayland             | sockets=wayland;             |
      | --nosocket=x11               | sockets=!x11;                |
      | --device=dri                 | devices=dri;                 |
      | --unshare=network            | shared=!network;             |
      | --env=WRITTEN_BY=pytest      | WRITTEN_BY=pytest            |

  Scenario: Overrides are taken back
    When I run the script as the user
      """
      set -e
      flatpak override --user --socket=wayland org.example.PytestBootc
      flatpak override --user --reset org.example.PytestBootc
      flatpak override --user --show org.example.PytestBootc
      """
    Then it succeeds
    And the output is empty

  @needs.command:flatpak%20list%20--system%20--app%20--columns=application%20|%20grep%20-q%20.
  Scenario: An override counts for an application that is installed
    # In another folder than the user's own, which stays as it is.
    When I run the script as the user
      """
      set -e
      application=$(flatpak list --system --app --columns=application | head -n 1)
      FLATPAK_USER_DIR=$(mktemp -d)
      export FLATPAK_USER_DIR
      trap 'rm -r "$FLATPAK_USER_DIR"' EXIT
      flatpak override --user --filesystem=/srv/pytest-bootc "$application"
      echo "given: $(flatpak info --show-permissions "$application" | grep ^filesystems=)"
      flatpak override --user --reset "$application"
      echo "taken: $(flatpak info --show-permissions "$application" | grep -c pytest-bootc)"
      """
    Then it succeeds
    And the output matches /^given: .*[=;]\/srv\/pytest-bootc;/
    And the output matches /^taken: 0$/

  @needs.user-unit.xdg-permission-store.service
  Scenario: A permission is stored, shown and reset
    When I run the script as the user
      """
      set -e
      trap 'flatpak permission-reset org.example.PytestBootc' EXIT
      flatpak permission-set notifications notification org.example.PytestBootc yes
      flatpak permissions notifications
      flatpak permission-reset org.example.PytestBootc
      echo "left: $(flatpak permissions notifications | grep -c PytestBootc)"
      """
    Then it succeeds
    And the output matches /^notifications\s+notification\s+org\.example\.PytestBootc\s+yes/
    And the output contains "left: 0"

  @needs.user-unit.xdg-permission-store.service
  Scenario: The store tells which documents it knows
    When I call List of org.freedesktop.impl.portal.PermissionStore at /org/freedesktop/impl/portal/PermissionStore of org.freedesktop.impl.portal.PermissionStore on the session bus with `s documents`
    Then it succeeds
    And the JSON value at type is "as"
