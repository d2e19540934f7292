Feature: Settings that an image brings for its users
  Users begin with what overrides of schemas and dconf's databases say (gsettings(1), dconf(7)). A database that nobody
  has compiled, or a key that its schema has no more, leaves them with something else, and nothing tells of it.

  What is Bluefin's own is asked of Bluefin, and of every image that says the same.

  Background:
    Given a user with a session

  @image.bluefin @needs.extension.custom-command-list@storageb.github.com
  Scenario: Custom Command Menu is among the extensions that are on
    Then the setting org.gnome.shell enabled-extensions contains "'custom-command-list@storageb.github.com'"

  @image.bluefin @needs.extension.custom-command-list@storageb.github.com
  Scenario: Logo Menu is not on beside Custom Command Menu
    Then the setting org.gnome.shell enabled-extensions does not contain "logomenu@aryan_k"

  @image.bluefin @needs.extension.custom-command-list@storageb.github.com
  Scenario: Custom Command Menu has an icon
    When I run `dconf read /org/gnome/shell/extensions/custom-command-list/menuicon-setting` as the user
    Then it succeeds
    And the output matches /^'.+'$/

  @needs.command:grep%20-qi%20bluefin%20/etc/os-release%20||%20grep%20-rqs%20^/org/gnome/software/allow-updates$%20/etc/dconf/db%20/usr/share/glib-2.0/schemas
  Scenario: Nobody has GNOME Software update the system
    The image is updated as a whole; a lock keeps the setting as it is.
    Then the setting org.gnome.software allow-updates is "false"
    And the setting org.gnome.software allow-updates cannot be changed
    And `gsettings set org.gnome.software allow-updates true` fails as the user

  @needs.command:grep%20-qi%20bluefin%20/etc/os-release%20||%20grep%20-rqs%20^custom-keybindings=%20/etc/dconf/db%20/usr/share/glib-2.0/schemas
  Scenario: There are shortcuts of the image's own
    Then the setting org.gnome.settings-daemon.plugins.media-keys custom-keybindings matches /'.*/custom0/'/

  @needs.command:grep%20-qi%20bluefin%20/etc/os-release%20||%20grep%20-rqs%20Control..Alt.t%20/etc/dconf/db%20/usr/share/glib-2.0/schemas
  Scenario: A shortcut opens a terminal
    Then the dconf key /org/gnome/settings-daemon/plugins/media-keys/custom-keybindings/custom0/binding is "<Control><Alt>t"
    And the dconf key /org/gnome/settings-daemon/plugins/media-keys/custom-keybindings/custom0/command is "xdg-terminal-exec"

  @needs.command:grep%20-qi%20bluefin%20/etc/os-release%20||%20grep%20-rqs%20^accent-color=.slate%20/etc/dconf/db%20/usr/share/glib-2.0/schemas
  Scenario: The accent colour is the image's
    Then the setting org.gnome.desktop.interface accent-color is "slate"

  @needs.command:grep%20-qi%20bluefin%20/etc/os-release%20||%20grep%20-rqs%20^font-name=.Adwaita.Sans.11%20/etc/dconf/db%20/usr/share/glib-2.0/schemas
  Scenario: The font is the image's
    Then the setting org.gnome.desktop.interface font-name is "Adwaita Sans 11"

  @needs.setting.org.gnome.desktop.interface
  Scenario: The battery's percentage can be shown
    Then the setting org.gnome.desktop.interface show-battery-percentage matches /^(true|false)$/

  @image.bluefin
  Scenario: The applications' grid has the image's folders
    Then the setting org.gnome.desktop.app-folders folder-children contains "'Containers'"
    And the setting org.gnome.desktop.app-folders folder-children contains "'Development'"
    And the setting org.gnome.desktop.app-folders folder-children contains "'GamingUtilities'"
    And the setting org.gnome.desktop.app-folders folder-children contains "'Productivity'"
    And the setting org.gnome.desktop.app-folders folder-children contains "'Utilities'"

  # Releases that do not write these down leave them as GNOME has them.

  @needs.command:grep%20-rqs%20color-scheme=.prefer-dark%20/usr/share/glib-2.0/schemas%20/etc/dconf/db
  Scenario: Users begin in the dark where the image says so
    Then the setting org.gnome.desktop.interface color-scheme is "prefer-dark"

  @needs.command:grep%20-rqs%20clock-format=.12h%20/usr/share/glib-2.0/schemas%20/etc/dconf/db
  Scenario: The clock has twelve hours where the image says so
    Then the setting org.gnome.desktop.interface clock-format is "12h"

  @needs.command:grep%20-rqs%20palette=.catppuccin-dynamic%20/usr/share/glib-2.0/schemas%20/etc/dconf/db
  Scenario: Ptyxis has the palette that the image says
    Then the dconf key /org/gnome/Ptyxis/Profiles/2871e8027773ae74d6c87a5f659bbc74/palette is "catppuccin-dynamic"
