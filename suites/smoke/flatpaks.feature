@needs.program.flatpak
Feature: Applications come as Flatpaks
  They are installed for everybody, by the first boot where the image does not bring them along; what was installed is
  whole, and sees no more of the system than it has to (flatpak(1), flatpak-metadata(5)).

  Background:
    When I wait until `systemctl show --property=ActiveState --value flatpak-preinstall.service | grep -qvx activating` succeeds within 600 seconds

  # A dry run only tells what it finds; its exit status says nothing of it.
  Scenario: The installation for everybody is whole
    When I run `LC_ALL=C.UTF-8 flatpak repair --system --dry-run` within 300 seconds
    Then it succeeds
    And the output contains "Working on the system installation"
    And the output does not match /^Remote .* is missing$/
    And the error output does not match /^(Object (missing|invalid)|Can't load object)/

  @needs.user
  Scenario: The user's own installation is whole
    Given a user
    When I run `LC_ALL=C.UTF-8 flatpak repair --user --dry-run` as the user within 120 seconds
    Then it succeeds
    And the output contains "Working on the user installation"
    And the output does not match /^Remote .* is missing$/
    And the error output does not match /^(Object (missing|invalid)|Can't load object)/

  @image.bluefin @needs.command:ls%20/var/lib/flatpak/app/*/current
  Scenario Outline: <application> is there for everybody
    Then the Flatpak <application> is installed

    Examples:
      | application                       |
      | be.alexandervanhee.gradia         |
      | com.github.PintaProject.Pinta     |
      | com.github.tchx84.Flatseal        |
      | com.mattjakeman.ExtensionManager  |
      | com.ranfdev.DistroShelf           |
      | io.github.flattool.Ignition       |
      | io.github.flattool.Warehouse      |
      | io.github.kolunmi.Bazaar          |
      | io.gitlab.adhami3310.Impression   |
      | io.missioncenter.MissionCenter    |
      | it.mijorus.smile                  |
      | org.gnome.Calculator              |
      | org.gnome.Calendar                |
      | org.gnome.Characters              |
      | org.gnome.Connections             |
      | org.gnome.Contacts                |
      | org.gnome.Decibels                |
      | org.gnome.DejaDup                 |
      | org.gnome.FileRoller              |
      | org.gnome.Firmware                |
      | org.gnome.Logs                    |
      | org.gnome.Loupe                   |
      | org.gnome.Maps                    |
      | org.gnome.NautilusPreviewer       |
      | org.gnome.Papers                  |
      | org.gnome.Showtime                |
      | org.gnome.SimpleScan              |
      | org.gnome.Snapshot                |
      | org.gnome.TextEditor              |
      | org.gnome.Weather                 |
      | org.gnome.baobab                  |
      | org.gnome.clocks                  |
      | org.gnome.font-viewer             |
      | org.mozilla.Thunderbird           |
      | org.mozilla.firefox               |
      | page.tesk.Refine                  |

  @needs.flatpak.<application>
  Scenario Outline: <application> does not see all files of the host
    When I run `flatpak info --system --show-permissions <application>`
    Then it succeeds
    And the output does not match /^filesystems=(.*;)?host(:\w+)?(;|$)/

    Examples:
      | application          |
      | org.gnome.Calculator |
      | org.mozilla.firefox  |
