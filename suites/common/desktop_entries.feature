@needs.file:/usr/share/applications
Feature: Applications in the menus
  A desktop entry with an error is left out of the menus, and what opens a file is told by the entries, too.

  @needs.program.desktop-file-validate
  Scenario: All desktop entries are valid
    Then all desktop entries in /usr/share/applications are valid

  @needs.wayland
  Scenario: There are applications
    Then /usr/share/applications/*.desktop names at least 10 files

  @image.bluefin
  Scenario: The desktop's own applications have entries
    Then the desktop entry org.gnome.Nautilus exists
    And the desktop entry org.gnome.Settings exists
    And the desktop entry org.gnome.Shell exists

  @needs.program.gio @needs.command:grep%20-qrs%20text/html%20/usr/share/applications%20/var/lib/flatpak/exports
  Scenario: Web pages are opened by an application
    Given a user
    When I run `XDG_DATA_DIRS=/var/lib/flatpak/exports/share:/usr/local/share:/usr/share gio mime text/html` as the user
    Then it succeeds
    And the output matches /^Default application for .*text/html.*: \S+\.desktop$/

  @needs.program.gio @needs.command:grep%20-qrs%20application/pdf%20/usr/share/applications%20/var/lib/flatpak/exports
  Scenario: PDF documents are opened by an application
    Given a user
    When I run `XDG_DATA_DIRS=/var/lib/flatpak/exports/share:/usr/local/share:/usr/share gio mime application/pdf` as the user
    Then it succeeds
    And the output matches /^Default application for .*application/pdf.*: \S+\.desktop$/

  Scenario Outline: Icons have the folder <path>
    Then the folder <path> has at least 1 entries

    Examples:
      | path                     |
      | /usr/share/icons/hicolor |
      | /usr/share/pixmaps       |
