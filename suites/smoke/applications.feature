@image.bluefin
Feature: Files and links open in the applications that the image chose
  The defaults are mimeapps.list's (the Association between MIME types and applications of freedesktop.org). They are
  asked for only where the application itself is there: whether it is, others judge.

  @needs.program.xdg-mime @needs.app.<application>
  Scenario Outline: <kind> opens in <application>
    Given a user
    Then the default application for <kind> is <application>

    Examples:
      | kind                   | application          |
      | text/html              | org.mozilla.firefox  |
      | x-scheme-handler/https | org.mozilla.firefox  |
      | text/plain             | org.gnome.TextEditor |
      | application/pdf        | org.gnome.Papers     |
      | image/png              | org.gnome.Loupe      |
      | video/mp4              | org.gnome.Showtime   |

  Scenario: There is a terminal to start
    Then the desktop entry org.gnome.Ptyxis exists
    And the desktop entry org.gnome.Ptyxis is valid
