Feature: Devices
  What people attach, and what a machine has built in, can be used from programs: the kernel has its driver, the rules
  and tools for it are there.

  @image.bluefin
  Scenario Outline: Rules for devices that need them: <device>
    Then the file /usr/lib/udev/rules.d/<file> is not empty

    Examples:
      | device                          | file                      |
      | keyboards that are configured   | 50-zsa.rules              |
      | a drive that has to be woken up | 90-apple-superdrive.rules |

  @needs.tpm
  Scenario: The TPM is one of version 2
    When I run `cat /sys/class/tpm/tpm0/tpm_version_major`
    Then it succeeds
    And the output is "2"

  @needs.tpm @needs.program.tpm2_getcap
  Scenario: Programs can talk to the TPM
    When I run `tpm2_getcap properties-fixed`
    Then it succeeds
    And the output contains "TPM2_PT_FAMILY_INDICATOR"
    When I run `tpm2_getrandom --hex 8`
    Then it succeeds
    And the output matches /^[0-9a-f]{16}$/

  @needs.file:/dev/watchdog @needs.program.wdctl
  Scenario: The watchdog tells what it is
    When I run `wdctl`
    Then it succeeds
    And the output matches /^Identity: +\S/
    And the output matches /^Timeout: +[1-9]\d* seconds/

  @needs.program.lsusb @needs.command:ls%20/sys/bus/usb/devices/usb*
  Scenario: Devices on the USB can be listed
    When I run `lsusb`
    Then it succeeds
    And the output matches /^Bus \d+ Device \d+: ID [0-9a-f]{4}:[0-9a-f]{4}/

  @needs.wayland
  Scenario: Programs of the session are told that it is one of Wayland
    Given a user with a session
    When I run `systemctl --user show-environment` as the user
    Then it succeeds
    And the output matches /^XDG_SESSION_TYPE=wayland$/
    And the output matches /^WAYLAND_DISPLAY=wayland-\d+$/
