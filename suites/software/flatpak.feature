@needs.program.flatpak
Feature: Applications from Flatpak
  They are installed for everybody, from a remote; each runs in a sandbox of its own (flatpak(1)).

  @needs.command:flatpak%20list%20--system%20--app%20--columns=application%20|%20grep%20-q%20.
  Scenario: An application starts in its sandbox
    Given a user with a session
    When I run the script as the user
      """
      application=$(flatpak list --system --app --columns=application | head -n 1)
      flatpak run --command=sh "$application" -c 'echo "inside $FLATPAK_ID"; cat /.flatpak-info'
      """
    Then it succeeds
    And the output matches /^inside \S+\.\S+/
    And the output matches /^\[Instance\]$/

  @image.bluefin @needs.network
  Scenario: Flathub tells of its applications
    When I run `flatpak remote-info --system flathub org.gnome.Calculator` within 120 seconds
    Then it succeeds
    And the output contains "app/org.gnome.Calculator/"

  @image.bluefin @needs.network
  Scenario: An application of Flathub is installed and removed
    When I run `flatpak install --system --noninteractive flathub org.gnome.gitlab.somas.Apostrophe` within 900 seconds
    Then it succeeds
    And the Flatpak org.gnome.gitlab.somas.Apostrophe is installed
    When I run `flatpak uninstall --system --noninteractive org.gnome.gitlab.somas.Apostrophe` within 300 seconds
    Then it succeeds
    And the Flatpak org.gnome.gitlab.somas.Apostrophe is not installed
