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

  @needs.program.ostree
  Scenario: Users have remotes of their own
    Given a user with a session
    When I run the script as the user
      """
      set -e
      folder=$(mktemp -d)
      trap 'rm -r "$folder"; flatpak remote-delete --user pytest-bootc' EXIT
      ostree init --repo="$folder" --mode=archive
      ostree summary --repo="$folder" --update
      flatpak remote-add --user --no-gpg-verify pytest-bootc "file://$folder"
      flatpak remotes --user --columns=name
      test -d ~/.local/share/flatpak/repo
      """
    Then it succeeds
    And the output matches /^pytest-bootc$/

  # user-environment-generators(7); without it no menu shows what Flatpak has installed.
  Scenario: Sessions find the applications of Flatpak
    Given a user with a session
    When I run `systemctl --user show-environment` as the user
    Then it succeeds
    And the output matches /^XDG_DATA_DIRS=(.*:)?/var/lib/flatpak/exports/share(:|$)/
