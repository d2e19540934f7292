Feature: Services that set the system up
  They run at each boot or login, and what they did not prepare is missed later and elsewhere. systemd calls units that
  have never run a success, too: here they have to have run.

  @needs.unit.<unit>
  Scenario Outline: It has run: <unit>
    Then the unit <unit> ran with the result success

    Examples:
      | unit                        |
      | dconf-update.service        |
      | rechunker-group-fix.service |
      | ublue-system-setup.service  |
      | flatpak-nuke-fedora.service |

  @image.bluefin @image.bazzite @image.aurora
  Scenario: Universal Blue sets the system up at each boot
    Then the unit ublue-system-setup.service is enabled

  # dconf(7): what programs read are the compiled files beside the folders.
  @needs.program.dconf @needs.command:ls%20-d%20/etc/dconf/db/*.d
  Scenario: Settings for everybody are compiled
    When I run the script
      """
      for folder in /etc/dconf/db/*.d; do
          [ -s "${folder%.d}" ] || echo "not compiled: $folder"
          find "$folder" -type f -newer "${folder%.d}"
      done
      """
    Then it succeeds
    And the output is empty

  # At a login with a screen it has run already; elsewhere it runs now.
  @needs.user-unit.ublue-user-setup.service
  Scenario: Universal Blue sets users up
    Given a user with a session
    When I start the user unit ublue-user-setup.service
    Then the user unit ublue-user-setup.service has not failed
    And the journal of the user unit ublue-user-setup.service matches /^(Started|Finished) /

  @needs.unit.flatpak-nuke-fedora.service @needs.program.flatpak
  Scenario: Flathub is the only remote that is left
    When I run `flatpak remotes --system --columns=name`
    Then it succeeds
    And the output is "flathub"

  # It pulls the booted image once more, and what it leaves behind then says that it has.
  @needs.network @needs.deployment @needs.unit.bootc-unified-storage.service
  Scenario: bootc and Podman share their storage
    When I wait until `test -e /var/lib/.bootc-unified-storage` succeeds within 900 seconds
    Then the unit bootc-unified-storage.service has not failed
    And the folder /ostree/bootc/storage/overlay has at least 1 entries
