@needs.file:/usr/share/flatcar/release
Feature: A host of containers
  Flatcar Container Linux boots from one of two partitions with /usr, runs containerd, and follows a channel of updates.

  Source: Flatcar's documentation, of its start, of its disk, and of update.conf.

  Scenario: os-release says that it is Flatcar, and which release
    Then os-release has ID "flatcar"
    And os-release has NAME matching /Flatcar/
    When I run `. /etc/os-release && . /usr/share/flatcar/release && echo "$VERSION_ID ${FLATCAR_RELEASE_VERSION%%+*}"`
    Then it succeeds
    And the output matches /^(\d+\.\d+\.\d+) \1$/

  Scenario: The boot has reached multi-user.target
    Then the unit multi-user.target is active

  Scenario: A network interface has an address
    When I run the script
      """
      for link in /sys/class/net/*/device; do
          link=${link%/device}
          ip -4 -oneline address show dev "${link##*/}" scope global
      done
      """
    Then it succeeds
    And the output contains "inet "

  Scenario: containerd runs
    Then the unit containerd.service is active

  Scenario: containerd answers its client, which is of the same version
    When I run `ctr version`
    Then it succeeds
    And the output matches /(?s)Client:\s+Version:\s+(\S+)\s.*Server:\s+Version:\s+\1\s/

  @needs.command:findmnt%20--types%20notmpfs%20/
  Scenario Outline: The disk has a partition <name>
    Then the path /dev/disk/by-partlabel/<name> exists

    Examples:
      | name       |
      | EFI-SYSTEM |
      | USR-A      |
      | USR-B      |
      | OEM        |
      | ROOT       |

  @needs.command:findmnt%20--types%20notmpfs%20/
  Scenario Outline: <folder> is on its partition
    When I run `lsblk --inverse --noheadings --output PARTLABEL "$(findmnt --noheadings --output SOURCE <folder>)"`
    Then it succeeds
    And the output matches /^<name>$/

    Examples:
      | folder | name     |
      | /      | ROOT     |
      | /usr   | USR-[AB] |

  Scenario: The machine follows a channel
    When I run `sed -n 's/^GROUP=//p' /usr/share/flatcar/update.conf /etc/flatcar/update.conf | tail -n 1`
    Then the output matches /^\S+$/

  @needs.program.update_engine_client
  Scenario: Without a server that can be asked there are no updates
    Given the file /etc/flatcar/update.conf with the text
      """
      SERVER=disabled
      """
    When I run `update_engine_client -update` within 120 seconds
    Then it fails
    When I run `update_engine_client -status`
    Then it succeeds
    And the output matches /^CURRENT_OP=/
    And the output does not contain "UPDATE_STATUS_UPDATED_NEED_REBOOT"

  @needs.program.coreos-metadata
  Scenario: The agent for the cloud's metadata can be started
    Then the program coreos-metadata tells its version
    And the unit coreos-metadata.service exists

  @needs.command:journalctl%20-qb%20-u%20coreos-metadata.service%20-n1%20|%20grep%20-q%20.
  Scenario: What the agent for metadata has found is there for services
    Then the unit coreos-metadata.service has not failed
    And the file /run/metadata/flatcar matches /^COREOS_\w+=./
