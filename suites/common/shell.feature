Feature: Shells, and the tools in them
  Everything that people type comes by these, and each new login reads what the image has put into their start-up files.

  @needs.program.<program>
  Scenario Outline: The program tells its version: <program>
    Then the program <program> tells its version

    Examples:
      | program  |
      | bash     |
      | zsh      |
      | fish     |
      | bat      |
      | eza      |
      | fd       |
      | fzf      |
      | rg       |
      | starship |

  @image.bluefin
  Scenario: Bluefin has these shells
    Then these programs are installed
      | program |
      | bash    |
      | zsh     |
      | fish    |

  @needs.program.<shell>
  Scenario Outline: A login is silent: <shell>
    Given a user
    When I run `<shell> -l -c 'echo ready'` as the user
    Then it succeeds
    And the output is "ready"
    And the error output is empty

    Examples:
      | shell |
      | sh    |
      | bash  |
      | zsh   |
      | fish  |

  @needs.program.<shell> @needs.program.starship
  Scenario Outline: Starship makes the prompt: <shell>
    When I run `<shell> -c '<command>'`
    Then it succeeds
    And the output contains "starship"

    Examples:
      | shell | command                                                 |
      | bash  | eval "$(starship init bash)" && echo "$PROMPT_COMMAND"  |
      | zsh   | eval "$(starship init zsh)" && echo "$PROMPT"           |
      | fish  | starship init fish \| source && functions fish_prompt   |

  # pam_env(8) ignores any other line, and says so in the journal only.
  @needs.file:/etc/environment
  Scenario: Each line of etc-environment sets a variable
    Then the file /etc/environment does not match /^(?!\s*(#|$|(export\s+)?[A-Za-z_]\w*=)).+/

  @image.bluefin
  Scenario: Bluefin sets variables for everybody
    Then the file /etc/environment is not empty
