@needs.program.flatpak
Feature: Flatpak's remotes
  Where applications come from: for everybody, and for a user alone.

  Scenario: Flatpak tells its version
    Then the program flatpak tells its version

  @image.bluefin @image.bazzite @image.aurora @image.dakota
  Scenario: Applications come from Flathub
    Then the Flatpak remote flathub exists
    When I run `flatpak remotes --system --columns=name,url,options`
    Then it succeeds
    And the output matches /^flathub\thttps:\/\/(dl\.)?flathub\.org\//
    And the output does not match /^flathub\t.*no-gpg-verify/

  # They are built anew from packages, and lack codecs.
  @image.bluefin @image.bazzite @image.aurora @image.dakota
  Scenario Outline: Applications do not come from Fedora: <remote>
    Then the Flatpak remote <remote> does not exist

    Examples:
      | remote         |
      | fedora         |
      | fedora-testing |

  # user-environment-generators(7); without it no menu shows what Flatpak has installed.
  Scenario: Sessions find the applications of Flatpak
    Given a user with a session
    When I run `systemctl --user show-environment` as the user
    Then it succeeds
    And the output matches /^XDG_DATA_DIRS=(.*:)?/var/lib/flatpak/exports/share(:|$)/
