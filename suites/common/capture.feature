@needs.wayland @needs.user-unit.xdg-desktop-portal.service
Feature: Pictures of the screen
  Screenshots and meetings in a browser get what is on the screen from portals, and casts of it through PipeWire.

  Background:
    Given a user with a session
    And the user unit graphical-session.target is active within 60 seconds
    # The portal does without what has not started when it is asked for.
    And I run `systemctl --user start xdg-desktop-portal-gnome.service` as the user
    And I start the user unit xdg-desktop-portal.service

  Scenario Outline: The portal has the interface <name>
    When I run `busctl --user get-property org.freedesktop.portal.Desktop /org/freedesktop/portal/desktop org.freedesktop.portal.<name> version` as the user
    Then it succeeds
    And the output matches /^u [1-9]\d*$/

    Examples:
      | name       |
      | ScreenCast |
      | Screenshot |

  Scenario: A request for a screenshot is taken
    When I call Screenshot of org.freedesktop.portal.Screenshot at /org/freedesktop/portal/desktop of org.freedesktop.portal.Desktop on the session bus with `sa{sv} "" 1 interactive b false`
    Then it succeeds
    And the JSON value at data[0] matches /^/org/freedesktop/portal/desktop/request/.+/

  @needs.program.gnome-shell @needs.user-unit.xdg-desktop-portal-gnome.service
  Scenario: A screenshot is a picture
    GNOME's part of the portal is asked; that nobody is asked back is for it to know from the portal.
    When I run the script as the user
      """
      set -eu
      answer=$(busctl --user --json=short --timeout=60 -- call org.freedesktop.impl.portal.desktop.gnome \
        /org/freedesktop/portal/desktop org.freedesktop.impl.portal.Screenshot Screenshot 'ossa{sv}' \
        /org/freedesktop/portal/desktop/request/test/picture '' '' \
        2 interactive b false permission_store_checked b true)
      echo "$answer"
      picture=$(echo "$answer" | sed -n 's|.*"file://\([^"]*\)".*|\1|p')
      test -n "$picture"
      trap 'rm -f "$picture"' EXIT
      od -A n -t x1 -N 8 "$picture"
      """
    Then it succeeds
    And the output contains "89 50 4e 47 0d 0a 1a 0a"

  Scenario: Monitors or windows can be cast
    When I run `busctl --user get-property org.freedesktop.portal.Desktop /org/freedesktop/portal/desktop org.freedesktop.portal.ScreenCast AvailableSourceTypes` as the user
    Then it succeeds
    And the output matches /^u [1-7]$/

  Scenario: A request for a cast is taken
    When I call CreateSession of org.freedesktop.portal.ScreenCast at /org/freedesktop/portal/desktop of org.freedesktop.portal.Desktop on the session bus with `a{sv} 2 handle_token s test session_handle_token s test`
    Then it succeeds
    And the JSON value at data[0] matches /^/org/freedesktop/portal/desktop/request/.+/test$/

  @needs.user-unit.pipewire.service
  Scenario: PipeWire is up
    Then the user unit pipewire.service is active
    And `test -S "$XDG_RUNTIME_DIR/pipewire-0"` succeeds as the user

  @needs.user-unit.wireplumber.service
  Scenario: PipeWire has somebody who connects its streams
    Then the user unit wireplumber.service is active
