Feature: People can type in their language
  @needs.setting.org.gnome.desktop.input-sources
  Scenario: A layout can be added and switched to
    Given a user with a session
    When I set the setting org.gnome.desktop.input-sources sources to "[('xkb', 'us'), ('xkb', 'de')]"
    And I set the setting org.gnome.desktop.input-sources mru-sources to "[('xkb', 'de'), ('xkb', 'us')]"
    And I set the setting org.gnome.desktop.input-sources current to "uint32 1"
    Then the setting org.gnome.desktop.input-sources sources is "[('xkb', 'us'), ('xkb', 'de')]"
    And the setting org.gnome.desktop.input-sources mru-sources is "[('xkb', 'de'), ('xkb', 'us')]"
    And the setting org.gnome.desktop.input-sources current is "1"

  @needs.program.localectl @needs.file:/usr/share/X11/xkb/rules/base.lst
  Scenario: Layouts are known
    When I run `localectl --no-pager list-x11-keymap-layouts`
    Then it succeeds
    And the output matches /^us$/
    And the output matches /^de$/

  @image.bluefin
  Scenario: There is IBus for languages that need more than a layout
    Then the program ibus-daemon is installed
