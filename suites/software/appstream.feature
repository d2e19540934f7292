Feature: The catalogue of software
  Shops show what the catalogues say that AppStream has put together (appstreamcli(1), flatpak-update(1)).

  @needs.program.appstreamcli
  Scenario: The catalogue can be made anew
    When I run `appstreamcli refresh-cache --force` within 120 seconds
    Then it succeeds

  @image.bluefin @needs.program.flatpak @needs.network
  Scenario: The catalogues of Flatpak's remotes are fetched
    When I run `flatpak update --system --appstream` within 300 seconds
    Then it succeeds
    And /var/lib/flatpak/appstream/*/*/active/appstream.xml.gz names at least 1 files

  @needs.app.org.gnome.Software
  Scenario: GNOME's shop can be started
    Given a user with a session
    Then the name org.gnome.Software can be activated on the session bus
