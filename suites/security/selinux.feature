@needs.selinux
Feature: SELinux
  The policy is in force, and files have the labels that it goes by. An image whose files lost their labels boots all
  the same, and then denies people their login.

  @needs.program.getenforce
  Scenario: The policy is enforced
    When I run `getenforce`
    Then it succeeds
    And the output is "Enforcing"

  Scenario: The policy will be enforced after the next boot
    Then the file /etc/selinux/config matches /^SELINUX=enforcing\s*$/

  Scenario Outline: <file> is labelled
    Then the file <file> has the SELinux type <type>

    Examples:
      | file        | type          |
      | /etc/passwd | passwd_file_t |
      | /etc/shadow | shadow_t      |

  @needs.file:/usr/bin/gnome-shell
  Scenario: The shell of the desktop is labelled as a program
    Then the file /usr/bin/gnome-shell has the SELinux type bin_t

  @needs.file:/usr/sbin/unix_chkpwd
  Scenario: What unlocks the screen may read passwords
    Then the file /usr/sbin/unix_chkpwd has the SELinux type chkpwd_exec_t
