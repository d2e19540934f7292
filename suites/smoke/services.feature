@image.bluefin @image.dakota
Feature: What applications ask of the session can be started
  Scenario Outline: <what> can be had
    Given a user with a session
    Then the name <name> can be activated on the session bus

    Examples:
      | what            | name                          |
      | notifications   | org.gnome.Shell.Notifications |
      | online accounts | org.gnome.OnlineAccounts      |
