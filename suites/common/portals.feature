@needs.wayland @needs.user-unit.xdg-desktop-portal.service
Feature: Portals
  What an application in a sandbox may do outside of it, it asks a portal for: to choose a file, open an address, tell
  something. Without them Flatpaks start, and can do next to nothing.

  Background:
    Given a user with a session
    And the user unit graphical-session.target is active within 60 seconds
    # The portal does without what has not started when it is asked for.
    And I run `systemctl --user start xdg-desktop-portal-gnome.service` as the user
    And I start the user unit xdg-desktop-portal.service

  Scenario: The graphical session is up
    Units that belong to a desktop, the portals among them, are started with this target (systemd.special(7)).
    Then the user unit graphical-session.target is active

  Scenario: The portal starts
    When I call Ping of org.freedesktop.DBus.Peer at /org/freedesktop/portal/desktop of org.freedesktop.portal.Desktop on the session bus
    Then it succeeds
    And the user unit xdg-desktop-portal.service is active
    And the user unit xdg-desktop-portal.service ran with the result success
    And the name org.freedesktop.portal.Desktop is owned on the session bus

  @needs.user-unit.xdg-desktop-portal-gnome.service
  Scenario: GNOME's part of the portal starts
    When I call Ping of org.freedesktop.DBus.Peer at /org/freedesktop/portal/desktop of org.freedesktop.impl.portal.desktop.gnome on the session bus
    Then it succeeds
    And the user unit xdg-desktop-portal-gnome.service is active
    And the name org.freedesktop.impl.portal.desktop.gnome is owned on the session bus

  @image.bluefin
  Scenario: GNOME says which backends it prefers
    Then the file /usr/share/xdg-desktop-portal/gnome-portals.conf matches /^default *=.*\bgnome\b/

  Scenario Outline: The portal has the interface <name>
    Then the object /org/freedesktop/portal/desktop of org.freedesktop.portal.Desktop has the interface org.freedesktop.portal.<name> on the session bus

    Examples:
      | name         |
      | Camera       |
      | FileChooser  |
      | Notification |
      | OpenURI      |
      | Settings     |

  Scenario: The portal tells whether the user likes it dark
    When I set the setting org.gnome.desktop.interface color-scheme to "prefer-light"
    And I wait until `busctl --user call org.freedesktop.portal.Desktop /org/freedesktop/portal/desktop org.freedesktop.portal.Settings Read ss org.freedesktop.appearance color-scheme | grep -x 'v v u 2'` succeeds as the user within 5 seconds
    And I set the setting org.gnome.desktop.interface color-scheme to "prefer-dark"
    And I wait until `busctl --user call org.freedesktop.portal.Desktop /org/freedesktop/portal/desktop org.freedesktop.portal.Settings Read ss org.freedesktop.appearance color-scheme | grep -x 'v v u 1'` succeeds as the user within 5 seconds

  Scenario: The portal tells the accent colour
    When I call Read of org.freedesktop.portal.Settings at /org/freedesktop/portal/desktop of org.freedesktop.portal.Desktop on the session bus with `ss org.freedesktop.appearance accent-color`
    Then it succeeds
    And the JSON value at data[0].data.type is "(ddd)"
    And the JSON value at data[0].data.data matches /^\[(0|1|0?\.\d+)(, (0|1|0?\.\d+)){2}\]$/

  Scenario: The portal tells all settings at once
    When I call ReadAll of org.freedesktop.portal.Settings at /org/freedesktop/portal/desktop of org.freedesktop.portal.Desktop on the session bus with `as 1 org.freedesktop.*`
    Then it succeeds
    And there is a JSON value at data[0]["org.freedesktop.appearance"]["color-scheme"]

  Scenario: The portal tells whether there is a camera
    When I run `busctl --user get-property org.freedesktop.portal.Desktop /org/freedesktop/portal/desktop org.freedesktop.portal.Camera IsCameraPresent` as the user
    Then it succeeds
    And the output matches /^b (true|false)$/

  @needs.program.update-desktop-database
  Scenario: An address that is opened comes to its application
    When I run the script as the user
      """
      set -eu
      folder=$HOME/.local/share/applications
      opened=$XDG_RUNTIME_DIR/test-opened
      trap 'rm -f "$folder/test.opens.desktop" "$opened"; update-desktop-database "$folder"' EXIT
      mkdir -p "$folder"
      cat >"$folder/test.opens.desktop" <<END
      [Desktop Entry]
      Type=Application
      Name=Test
      NoDisplay=true
      Exec=sh -c "echo %u >$opened"
      MimeType=x-scheme-handler/x-portal-test;
      END
      update-desktop-database "$folder"
      for try in 1 2 3 4 5 6 7 8 9 10; do
        busctl --user call org.freedesktop.portal.Desktop /org/freedesktop/portal/desktop \
          org.freedesktop.portal.OpenURI OpenURI 'ssa{sv}' '' x-portal-test:door 0
        sleep 1
        if [ -s "$opened" ]; then cat "$opened"; exit; fi
      done
      echo 'nothing was opened' >&2
      exit 1
      """
    Then it succeeds
    And the output contains "x-portal-test:door"

  @needs.program.xdg-terminal-exec
  Scenario: There is a terminal to run programs in
    Which one is asked for with one word in old releases, and with the other in newer ones.
    When I run `xdg-terminal-exec --test --print-id` as the user
    Then it succeeds
    And the output is not empty

  Scenario: The portal for documents starts
    When I call GetMountPoint of org.freedesktop.portal.Documents at /org/freedesktop/portal/documents of org.freedesktop.portal.Documents on the session bus
    Then it succeeds
    And the user unit xdg-document-portal.service is active
    And the object /org/freedesktop/portal/documents of org.freedesktop.portal.Documents has the interface org.freedesktop.portal.Documents on the session bus

  Scenario: Documents are in a file system of their own
    When I call Ping of org.freedesktop.DBus.Peer at /org/freedesktop/portal/documents of org.freedesktop.portal.Documents on the session bus
    Then it succeeds
    When I run `findmnt --noheadings --output FSTYPE --mountpoint "$XDG_RUNTIME_DIR/doc"` as the user
    Then it succeeds
    And the output is "fuse.portal"
    When I run `ls "$XDG_RUNTIME_DIR/doc"` as the user
    Then it succeeds
    And the output contains "by-app"

  @needs.program.flatpak
  Scenario: A document that is handed over can be read
    When I run the script as the user
      """
      set -eu
      file=$(mktemp "$HOME/handed-over-XXXXXX")
      trap 'flatpak document-unexport "$file"; rm -f "$file"' EXIT
      echo 'It has arrived.' >"$file"
      shown=$(flatpak document-export "$file")
      cmp "$file" "$shown"
      cat "$shown"
      """
    Then it succeeds
    And the output contains "It has arrived."
