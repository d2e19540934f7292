Feature: The tools that an image gives its people answer
  @image.bluefin
  Scenario: The system says that it is Bluefin
    Then the file /etc/os-release matches /^(NAME|PRETTY_NAME|IMAGE_ID|VARIANT_ID)=.*[Bb]luefin/

  @image.bluefin
  Scenario: There is ujust
    Then the program ujust is installed

  # What it lists are the groups in brackets, and the recipes below them.
  @needs.program.ujust
  Scenario: ujust lists its recipes
    Given a user
    When I run `ujust --list` as the user
    Then it succeeds
    And the output has at least 5 lines

  @needs.ujust:report=positive%20integer
  Scenario: ujust report takes numbers of issues only
    Given a user
    When I run `ujust report none 2>&1` as the user
    Then the exit status is 1
    And the output contains "positive integer"

  @needs.ujust:report=requires%20an%20issue%20number
  Scenario: ujust report asks for the number of an issue
    Given a user
    When I run `ujust report 2>&1` as the user
    Then the exit status is 1
    And the output contains "requires an issue number"

  @needs.program.fastfetch
  Scenario: fastfetch shows the system
    Given a user
    When I run `fastfetch --pipe` as the user
    Then it succeeds
    And the output matches /^.*Kernel.*Linux/
    And the output has at least 5 lines
