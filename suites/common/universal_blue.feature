Feature: The programs of Universal Blue
  Bluefin, Bazzite and Aurora have them in common: people, services and each other's scripts call them by name.

  @image.bluefin @image.bazzite @image.aurora
  Scenario Outline: The program is there: <path>
    Then the file <path> is executable
    And the file <path> belongs to root:root

    Examples:
      | path                        |
      | /usr/bin/bootc              |
      | /usr/bin/just               |
      | /usr/bin/ujust              |
      | /usr/bin/ublue-system-setup |
      | /usr/bin/ublue-user-setup   |

  @needs.program.<program>
  Scenario Outline: The program tells its version: <program>
    Then the program <program> tells its version

    Examples:
      | program |
      | bootc   |
      | just    |

  @needs.program.<program>
  Scenario Outline: The program tells which image this is: <program>
    When I run `<program>`
    Then it succeeds
    And the output matches /^[a-z0-9][a-z0-9._-]*:[A-Za-z0-9_][A-Za-z0-9._-]*/

    Examples:
      | program             |
      | ublue-image-info    |
      | ublue-image-info.sh |

  # Flatpak removes what it has once installed from this list and no longer finds there (flatpak-preinstall(1)).
  @image.bluefin
  Scenario: Bazaar is in Flatpak's list
    Then the file /usr/share/flatpak/preinstall.d/bazaar.preinstall contains "[Flatpak Preinstall io.github.kolunmi.Bazaar]"

  @image.bluefin @image.bazzite @image.aurora @image.dakota
  Scenario: Nothing brings Fedora's Flatpaks back
    Then the unit flatpak-add-fedora-repos.service does not exist
