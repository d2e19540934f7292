Feature: Outlines

  Background:
    Given the number 5

  @outline @n.<n>
  Scenario Outline: Number <n>
    Given the number <n>
    Then it is 5
    And the row is <n>,<word>

    @small
    Examples: small
      | n | word |
      | 5 | five |
      | 6 | six  |

    Examples: large
      | n | word |
      | 5 | many |
      | 7 | more |

  @left_out
  Scenario Outline: Left out <n>
    Given the number <n>
    Examples:
      | n |
      | 1 |

  Scenario Outline: <thing> in tables
    Given a table
      | name    | size |
      | <thing> | 1    |
    Then row 1 is <thing> of 1
    Given a text
      """
      <thing> and more
      """
    Then it has 3 words

    Examples:
      | thing |
      | one   |
      | two   |
