Feature: People who need it can use the system
  What is judged here needs no screen: the bus that screen readers and programs meet on, settings, and speech.

  @needs.file:/usr/share/dbus-1/services/org.a11y.Bus.service
  Scenario: Programs and screen readers meet on a bus
    Given a user with a session
    When I call GetAddress of org.a11y.Bus at /org/a11y/bus of org.a11y.Bus on the session bus
    Then it succeeds
    And the output matches /"unix:[^"]+"/
    When I run the script as the user
      """
      set -e
      answer=$(busctl --user call org.a11y.Bus /org/a11y/bus org.a11y.Bus GetAddress)
      address=${answer#s \"}
      busctl --address="${address%\"}" --json=short call org.a11y.atspi.Registry /org/a11y/atspi/accessible/root \
        org.a11y.atspi.Accessible GetRole
      """
    Then it succeeds
    And the output is JSON
    And the journal of the user unit at-spi-dbus-bus.service with priority err or worse is empty

  @needs.setting.org.gnome.desktop.a11y.interface
  Scenario: High contrast can be switched on
    Given a user with a session
    When I set the setting org.gnome.desktop.a11y.interface high-contrast to "true"
    Then the setting org.gnome.desktop.a11y.interface high-contrast is "true"

  @needs.setting.org.gnome.desktop.a11y.keyboard
  Scenario Outline: The keyboard's <key> can be switched on
    Given a user with a session
    When I set the setting org.gnome.desktop.a11y.keyboard <key> to "true"
    Then the setting org.gnome.desktop.a11y.keyboard <key> is "true"

    Examples:
      | key               |
      | bouncekeys-enable |
      | mousekeys-enable  |
      | slowkeys-enable   |
      | stickykeys-enable |

  @image.bluefin
  Scenario: There is a screen reader, and something that speaks
    Then these programs are installed
      | program           |
      | orca              |
      | spd-say           |
      | speech-dispatcher |
