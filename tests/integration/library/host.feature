Feature: Steps that any system can be asked by
  Tried on the machine that the tests run on, through OpenSSH's server. FOLDER is a folder of the test's own.

  Scenario: Commands
    When I run `echo out; echo bad >&2`
    Then it succeeds
    And the exit status is 0
    And the exit status is 0 or 3
    When I run `exit 3`
    Then it fails
    And the exit status is 3
    And the exit status is 0 or 3
    And the output is empty
    Then `true` succeeds
    And `false` fails
    When I run `echo ok` within 20 seconds
    Then it succeeds
    When I run `cat` with the input "some words"
    Then it succeeds
    And the output is "some words"
    When I run `sort` with the input
      """
      b
      a
      """
    Then it succeeds
    And the output is
      """
      a
      b
      """
    When I run the script
      """
      for n in 1 2; do
        echo $n
      done
      """
    Then it succeeds
    And the output has 2 lines
    When I wait until `test -e /` succeeds
    And I wait until `test -e /` succeeds within 5 seconds

  Scenario Outline: Commands fail: <step>
    When I run `<command>`
    Then <step>

    Examples:
      | command       | step                                                   | message                                                     |
      | exit 3        | it succeeds                                            | `exit 3` gave exit status 3                                 |
      | kill -9 $$    | it fails                                               | `kill -9 $$` was ended by signal KILL: it could not be run  |
      | no-such-thing | it fails                                               | `no-such-thing` gave exit status 127: it could not be run   |
      | echo text     | it fails                                               | `echo text` succeeded, and should not have                  |
      | exit 3        | the exit status is 4                                   | `exit 3` gave exit status 3, not 4                          |
      | exit 3        | the exit status is 0 or 4                              | `exit 3` gave exit status 3, neither 0 nor 4                |
      | true          | `exit 2` succeeds                                      | `exit 2` gave exit status 2                                 |
      | true          | `true` fails                                           | `true` succeeded, and should not have                       |
      | true          | I run `sleep 9` within 1 seconds                       | did not end within 1 s                                      |
      | true          | I wait until `exit 7` succeeds within 1 seconds        | waited 1 s for `exit 7` to succeed                          |

  Scenario: Output
    When I run `printf 'one two\n\nthree\n'; echo 'some trouble' >&2`
    Then it succeeds
    And the output contains "one two"
    And the output contains
      """
      one two

      three
      """
    And the output contains each of
      | text  |
      | three |
      | one   |
    And the output does not contain "four"
    And the output matches /^th\w+$/
    And the output does not match /^two/
    And the output is not empty
    And the output has 2 lines
    And the output has at least 2 lines
    And the output has at most 2 lines
    And the error output contains "trouble"
    And the error output contains
      """
      some trouble
      """
    And the error output does not contain "one"
    And the error output matches /trouble$/
    And the error output does not match /^one/
    And the error output is not empty
    When I run `echo 17%`
    Then it succeeds
    And the output has 1 line
    And the output is a number of at least 17
    And the output is a number of at most 17.5
    And the error output is empty
    When I run `true`
    Then it succeeds
    And the output is empty

  Scenario: Output that is JSON
    When I run `echo '{"a": {"b.c": [1, true, null, "x"]}, "empty": []}'`
    Then it succeeds
    And the output is JSON
    And the JSON value at a["b.c"][0] is "1"
    And the JSON value at a["b.c"][1] is "true"
    And the JSON value at a["b.c"][3] is "x"
    And the JSON value at a["b.c"] matches /null/
    And there is a JSON value at a["b.c"][3]

  Scenario Outline: Output fails: <step>
    When I run `<command>`
    Then <step>

    Examples:
      | command           | step                                    | message                                                    |
      | echo a            | the output contains "b"                 | the output of `echo a` does not contain 'b'                |
      | echo a >&2        | the output contains "a"                 | the output of `echo a >&2` does not contain 'a'            |
      | echo a            | the error output contains "a"           | the error output of `echo a` does not contain 'a'          |
      | echo ab           | the output does not contain "b"         | the output of `echo ab` contains 'b'                       |
      | echo ab >&2       | the error output does not contain "b"   | the error output of `echo ab >&2` contains 'b'             |
      | exit 1            | the output does not contain "b"         | gave exit status 1: what it did not print proves nothing   |
      | echo ab           | the output matches /^b/                 | the output of `echo ab` does not match /^b/                |
      | echo ab           | the output matches /(/                  | /(/ is no regular expression                               |
      | echo ab           | the error output matches /b/            | the error output of `echo ab` does not match /b/           |
      | echo ab           | the output does not match /b$/          | the output of `echo ab` matches /b$/: 'b'                  |
      | echo ab >&2       | the error output does not match /b$/    | the error output of `echo ab >&2` matches /b$/: 'b'        |
      | no-such-thing     | the output does not match /b$/          | gave exit status 127: what it did not print proves nothing |
      | echo ab           | the output is "a"                       | `echo ab` printed 'ab', not 'a'                            |
      | echo ab           | the output is empty                     | the output of `echo ab` is not empty                       |
      | exit 1            | the output is empty                     | gave exit status 1: what it did not print proves nothing   |
      | echo ab >&2       | the error output is empty               | the error output of `echo ab >&2` is not empty             |
      | true              | the output is not empty                 | `true` printed nothing on standard output                  |
      | true              | the error output is not empty           | `true` printed nothing on standard error                   |
      | echo ab           | the output has 2 lines                  | `echo ab` printed 1 lines, not 2                           |
      | true              | the output has 1 line                   | `true` printed 0 lines, not 1                              |
      | echo ab           | the output has at least 2 lines         | `echo ab` printed 1 lines, not at least 2                  |
      | echo ab           | the output has at most 0 lines          | `echo ab` printed 1 lines, not at most 0                   |
      | exit 1            | the output has at most 1 lines          | gave exit status 1: what it did not print proves nothing   |
      | echo 5            | the output is a number of at least 5.1  | `echo 5` printed 5, not at least 5.1                       |
      | echo 5            | the output is a number of at most -1    | `echo 5` printed 5, not at most -1                         |
      | echo five         | the output is a number of at most 9     | `echo five` printed 'five', which is no number             |
      | echo five         | the output is JSON                      | `echo five` printed something that is not JSON             |
      | echo '{"a": [1]}' | the JSON value at a[0] is "2"           | a[0] is '1', not '2'                                       |
      | echo '{"a": [1]}' | the JSON value at a[1] is "2"           | there is no a[1]: a has no 1 (list)                        |
      | echo '{"a": [1]}' | the JSON value at b.c is "2"            | there is no b.c: the whole has no 'b' (a)                  |
      | echo '{"a": [1]}' | the JSON value at a[0] matches /2/      | a[0] is '1', which does not match /2/                      |
      | echo '{"a": []}'  | there is a JSON value at a              | a is '[]'                                                  |

  Scenario: Texts and tables that are not there
    When I run `echo ab`
    Then the output contains
      """
      b
      """

  Scenario Outline: Texts fail
    When I run `echo ab; echo cd >&2`
    Then <step>
      """
      x
      """

    Examples:
      | step                      | message                              |
      | the output contains       | does not contain 'x'                 |
      | the error output contains | does not contain 'x'                 |
      | the output is             | printed 'ab', not 'x'                |

  Scenario Outline: Tables fail
    When I run `echo ab`
    Then <step>
      | name             |
      | ab               |
      | /no/such/thing   |

    Examples:
      | step                         | message                                                     |
      | the output contains each of  | does not contain '/no/such/thing'                           |
      | these programs are installed | there are no programs ab, /no/such/thing                    |
      | these paths exist            | there is no ab, /no/such/thing                              |

  Scenario Outline: What a step lacks
    Then <step>

    Examples:
      | step                         | message                                                     |
      | it succeeds                  | no command has been run yet                                 |
      | these paths exist            | the step needs a table below it                             |
      | the output is                | the step needs a text below it                              |

  Scenario: Files
    Given the file FOLDER/a.json with the text
      """
      {"list": [{"name": "x"}], "n": 5}
      """
    And the file FOLDER/a.toml with the text
      """
      [table]
      list = ["x"]
      """
    And the file "FOLDER/with space.yaml" with the text
      """
      list:
        - name: x
        - 5
      """
    When I run `cd FOLDER && chmod 4710 a.json && ln -s a.json link && touch empty && mkdir deep`
    Then it succeeds
    And the file FOLDER/a.json exists
    And the folder FOLDER/deep exists
    And the socket FOLDER/socket exists
    And the path FOLDER/link exists
    And the path FOLDER/other does not exist
    And the file FOLDER/a.json has the mode 4710
    And the file FOLDER/link belongs to OWNER
    And the file FOLDER/a.json is executable
    And the path FOLDER/link is a link to a.json
    And the path FOLDER/link is a link to FOLDER/a.json
    And the file FOLDER/empty is empty
    And the file FOLDER/a.json is not empty
    And the file FOLDER/a.json contains ""name": "x""
    And the file FOLDER/a.json does not contain "y"
    And the file FOLDER/a.toml matches /^list = /
    And the file FOLDER/a.toml does not match /^table/
    And the file FOLDER/a.json is valid JSON
    And the file FOLDER/a.toml is valid TOML
    And the file "FOLDER/with space.yaml" is valid YAML
    And the JSON value at list[0].name in the file FOLDER/a.json is "x"
    And the JSON value at n in the file FOLDER/a.json is "5"
    And the TOML value at table.list[0] in the file FOLDER/a.toml is "x"
    And the YAML value at list[1] in the file "FOLDER/with space.yaml" is "5"
    And the folder FOLDER has at least 5 entries
    And FOLDER/a.* names at least 2 files
    And these paths exist
      | path                   |
      | FOLDER/a.json          |
      | FOLDER/with space.yaml |

  Scenario: What was written is restored
    Then the path FOLDER/a.toml does not exist
    And the file FOLDER/before contains "before"

  Scenario: A file that was there before
    Given the file FOLDER/before with the text
      """
      now
      """
    Then the file FOLDER/before contains "now"

  Scenario: It is as it was
    Then the file FOLDER/before contains "before"

  Scenario Outline: Files fail: <step>
    Given the file FOLDER/a.json with the text
      """
      {"list": [{"name": "x"}]
      """
    Then <step>

    Examples:
      | step                                                       | message                                              |
      | the file FOLDER exists                                     | there is no file FOLDER                              |
      | the folder FOLDER/a.json exists                            | there is no folder FOLDER/a.json                     |
      | the socket FOLDER/a.json exists                            | there is no socket FOLDER/a.json                     |
      | the path FOLDER/other exists                               | there is no path FOLDER/other                        |
      | the path FOLDER/a.json does not exist                      | there is FOLDER/a.json                               |
      | the file FOLDER/a.json has the mode 600                    | FOLDER/a.json has the mode 644, not 600              |
      | the file FOLDER/other has the mode 600                     | FOLDER/other cannot be looked at                     |
      | the file FOLDER/a.json belongs to nobody                   | not to nobody                                        |
      | the file FOLDER/a.json is executable                       | FOLDER/a.json is not executable: its mode is 644     |
      | the path FOLDER/a.json is a link to FOLDER/other           | FOLDER/a.json is no link                             |
      | the path /proc/self is a link to FOLDER/other              | not to FOLDER/other                                  |
      | the file FOLDER/a.json is empty                            | FOLDER/a.json is not empty                           |
      | the file /dev/null is not empty                            | /dev/null is empty                                   |
      | the file FOLDER/other is empty                             | FOLDER/other cannot be read                          |
      | the file FOLDER/a.json contains "y"                        | FOLDER/a.json does not contain 'y'                   |
      | the file FOLDER/a.json does not contain "name"             | FOLDER/a.json contains 'name'                        |
      | the file FOLDER/other does not contain "name"              | FOLDER/other cannot be read                          |
      | the file FOLDER/a.json matches /^list/                     | FOLDER/a.json does not match /^list/                 |
      | the file FOLDER/a.json does not match /list/               | FOLDER/a.json matches /list/                         |
      | the file FOLDER/a.json is valid JSON                       | FOLDER/a.json is not JSON                            |
      | the file FOLDER/a.json is valid TOML                       | FOLDER/a.json is not TOML                            |
      | the file FOLDER/a.json is valid YAML                       | FOLDER/a.json is not YAML                            |
      | the JSON value at a in the file FOLDER/a.json is "x"       | FOLDER/a.json is not JSON                            |
      | the TOML value at a in the file FOLDER/a.json is "x"       | FOLDER/a.json is not TOML                            |
      | the YAML value at a in the file /dev/null is "x"           | there is no a: the whole has no 'a' (NoneType)       |
      | the folder FOLDER has at least 99 entries                  | FOLDER has                                           |
      | FOLDER/*.odd names at least 1 files                        | FOLDER/*.odd names 0 files, not at least 1           |
      | the file FOLDER/a.json has the SELinux type no_such_t      | FOLDER/a.json                                        |
      | the file FOLDER/a.json has the capability cap_setuid       | does not have cap_setuid in effect: it has none      |

  Scenario: Programs
    Then the program sh is installed
    And the program no-such-thing is not installed
    And these programs are installed
      | name |
      | sh   |
      | cat  |
    And the program bash tells its version
    And the program bash has at least the version 3.2

  Scenario Outline: Programs fail: <step>
    Then <step>

    Examples:
      | step                                           | message                                          |
      | the program no-such-thing is installed         | there is no program no-such-thing                |
      | the program sh is not installed                | there is a program sh: /                         |
      | the program no-such-thing tells its version    | `no-such-thing --version` gave exit status 127   |
      | the program bash has at least the version 9999 | bash has the version                             |
      | the package no-such-package is installed       | no package no-such-package is installed          |

  Scenario: Processes
    Then the process sshd runs
    And the process sshd runs as ME
    And the process no-such-thing does not run

  Scenario Outline: Processes fail: <step>
    Then <step>

    Examples:
      | step                                    | message                                      |
      | the process no-such-thing runs          | no process no-such-thing runs                |
      | the process sshd does not run           | processes sshd run, of                       |
      | the process sshd runs as no-one         | the process sshd runs as                     |
      | the process no-such-thing runs as ME    | the process no-such-thing does not run       |

  Scenario: Users and groups
    Then the user root exists
    And the user no-one does not exist
    And the group root exists
    And the user root is in the group root
    And the user root is not in the group no-group
    And the user root has the shell ROOT_SHELL

  Scenario Outline: Users fail: <step>
    Then <step>

    Examples:
      | step                                        | message                                   |
      | the user no-one exists                      | there is no user no-one                   |
      | the user root does not exist                | there is a user root                      |
      | the group no-group exists                   | there is no group no-group                |
      | the user root is in the group no-group      | root is not in the group no-group         |
      | the user root is not in the group root      | root is in the group root                 |
      | the user no-one is not in the group root    | the groups of no-one cannot be told       |
      | the user root has the shell /bin/no-shell   | the shell of root is                      |
      | the user no-one has the shell /bin/sh       | there is no user no-one                   |

  Scenario: The system
    Then os-release has ID "OS_ID"
    And os-release has ID matching /^[a-z]/
    And /proc is mounted
    And /proc/self is on a writable file system
    And /proc is on a file system of type proc
    And /proc is on a file system of type sysfs|proc
    And /proc is mounted with the option rw
    And the kernel argument no-such-argument is not given
    And the kernel setting kernel.ostype is "Linux"

  Scenario Outline: The system fails: <step>
    Then <step>

    Examples:
      | step                                              | message                                              |
      | os-release has ID "no-such-system"                | os-release has ID='OS_ID', not 'no-such-system'      |
      | os-release has NONE matching /^[a-z]/             | os-release has NONE=None, which does not match       |
      | /proc/self is mounted                             | nothing is mounted at /proc/self                     |
      | /no/such/path is on a read-only file system       | there is no /no/such/path                            |
      | /proc is on a read-only file system               | /proc is on /proc, which is writable                 |
      | /proc is on a file system of type btrfs           | /proc is on a file system of type proc, not btrfs    |
      | /proc is mounted with the option compress         | /proc is mounted without the option compress         |
      | the kernel module no-such-module is loaded        | the kernel module no-such-module is not loaded       |
      | the kernel argument no-such-argument is given     | the kernel argument no-such-argument is not given    |
      | the kernel setting kernel.ostype is "Minix"       | kernel.ostype is 'Linux', not 'Minix'                |
      | the kernel setting no.such.setting is "1"         | there is no kernel setting no.such.setting           |

  Scenario: The network
    Then the TCP port PORT is open
    And the TCP port PORT is open within 5 seconds
    And the TCP port CLOSED is closed
    And the name localhost resolves
    And the interface lo has an address

  Scenario Outline: The network fails: <step>
    Then <step>

    Examples:
      | step                                           | message                                            |
      | the TCP port CLOSED is open                    | the TCP port CLOSED is closed                      |
      | the TCP port CLOSED is open within 1 seconds   | waited 1 s for TCP port CLOSED to open             |
      | the TCP port PORT is closed                    | the TCP port PORT is open                          |
      | the name no-such-host.invalid resolves         | no-such-host.invalid does not resolve              |
      | the interface no-such-one has an address       | there is no interface no-such-one                  |

  Scenario Outline: The guest has no deployment: <step>
    Then <step>

    Examples:
      | step                                                          | message                                     |
      | the system is a deployment of bootc                           | the root is no deployment of bootc or ostree |
      | the booted deployment comes from "example.org/a:b"            | the root is no deployment of bootc or ostree |
      | the booted deployment comes from an image matching /a/        | the root is no deployment of bootc or ostree |
      | the booted deployment has a digest                            | the root is no deployment of bootc or ostree |
      | there is a staged deployment                                  | the root is no deployment of bootc or ostree |
      | there is no staged deployment                                 | the root is no deployment of bootc or ostree |
      | there is a rollback deployment                                | the root is no deployment of bootc or ostree |
      | there is no rollback deployment                               | the root is no deployment of bootc or ostree |
