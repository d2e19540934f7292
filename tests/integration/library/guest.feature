Feature: Steps that a guest is asked by
  Tried in a machine of the image `workstation`, which systemd has booted, and whose user has a session.

  Scenario: Commands as the user
    When I run `id -un; pwd; echo "$XDG_RUNTIME_DIR"` as the user
    Then it succeeds
    And the output is
      """
      tester
      /home/tester
      /run/user/1000
      """
    When I run `id -un` as nobody
    Then it succeeds
    And the output is "nobody"
    When I run `id -un` as the user within 30 seconds
    Then it succeeds
    When I run the script as the user
      """
      cd /tmp
      echo "$HOME"
      """
    Then it succeeds
    And the output contains "/tester"
    And `test -w "$HOME"` succeeds as the user
    And `test -w /etc` fails as the user
    And the program bash tells its version to the user
    When I wait until `test -S "$XDG_RUNTIME_DIR/bus"` succeeds as the user within 20 seconds

  Scenario Outline: Commands as the user fail: <step>
    Then <step>

    Examples:
      | step                                                              | message                                       |
      | `test -w /etc` succeeds as the user                               | `test -w /etc  # as tester` gave exit status 1 |
      | `test -w /tmp` fails as the user                                  | succeeded, and should not have                |
      | I wait until `false` succeeds as the user within 1 seconds        | waited                                        |
      | the program no-such-thing tells its version to the user           | gave exit status 127                          |
      | I run `id` as "no name"                                           | 'no name' is no name of a user                |

  Scenario: Users that are made
    Given the user maker
    When I run `id -un; test -d "$HOME" && echo home` as the user
    Then it succeeds
    And the output has 2 lines
    And the output contains "maker"

  Scenario: Users that were made are gone
    Then the user maker does not exist
    And the path /var/home/maker does not exist

  Scenario: Somebody is the user
    Given a user
    Then the user tester exists
    And the user tester lingers

  Scenario: A session that is made
    Given the user maker
    And a user with a session
    Then the user maker lingers
    And the name org.freedesktop.systemd1 is owned on the session bus

  Scenario: A session is there already
    Given a user with a session
    Then the user tester lingers

  Scenario Outline: Users fail: <step>
    Given <step>

    Examples:
      | step                    | message                                |
      | the user "no name"      | the user no name could not be made     |
      | the user root lingers   | root does not linger                   |

  Scenario: Units
    Given the file /run/systemd/system/steps-good.service with the text
      """
      [Unit]
      After=steps-other.service
      [Service]
      Type=oneshot
      RemainAfterExit=yes
      ExecStart=/bin/true
      [Install]
      WantedBy=multi-user.target
      """
    And the file /run/systemd/system/steps-bad.service with the text
      """
      [Service]
      Type=oneshot
      ExecStart=/bin/sh -c "echo it goes wrong; exit 3"
      """
    And the file /run/systemd/system/steps-good.timer with the text
      """
      [Timer]
      OnActiveSec=1d
      """
    When I run `systemctl daemon-reload; systemctl reset-failed`
    Then it succeeds
    And the unit steps-good.service exists
    And the unit steps-good.service is not active
    And the unit steps-good.service is not enabled
    And the unit steps-good.service has not failed
    And the unit steps-good.service is ordered after steps-other.service
    And the unit steps-good.service is not ordered after other.service
    And the unit steps-other.service does not exist
    And no unit has failed
    When I start the unit steps-good.service
    And I start the unit steps-good.timer
    Then the unit steps-good.service is active
    And the unit steps-good.service is active within 10 seconds
    And the unit steps-good.service ran with the result success
    And the unit steps-good.service has the property Type "oneshot"
    And the unit steps-good.service has the property ExecStart matching /bin.true/
    And the timer steps-good.timer will elapse
    When I restart the unit steps-good.service
    And I stop the unit steps-good.service
    And I stop the unit steps-good.timer
    Then the unit steps-good.service is not active
    And the unit dbus.socket is enabled
    When I run `systemctl --runtime mask steps-masked.service; systemctl start steps-bad.service`
    Then it fails
    And the unit steps-masked.service is masked
    And the unit steps-bad.service has failed
    And the unit steps-bad.service ran with the result exit-code
    And the journal of the unit steps-bad.service since the scenario began contains "it goes wrong"
    And the journal since the scenario began matches /it goes \w+$/

  Scenario Outline: Units fail: <step>
    Then <step>

    Examples:
      | step                                                           | message                                              |
      | the unit steps-bad.service is active                           | steps-bad.service is failed                          |
      | the unit steps-bad.service is active within 5 seconds          | steps-bad.service will not become active             |
      | the unit dbus.service is not active                            | dbus.service is active (running)                     |
      | the unit nothing.service is not active                         | nothing.service is not-found                         |
      | the unit nothing.service exists                                | nothing.service is not-found                         |
      | the unit dbus.service does not exist                           | dbus.service is loaded                               |
      | the unit nothing.service is enabled                            | nothing.service is not enabled                       |
      | the unit dbus.socket is not enabled                            | dbus.socket is static                                |
      | the unit dbus.service is masked                                | dbus.service is loaded                               |
      | the unit dbus.service has failed                               | dbus.service is active (running)                     |
      | the unit steps-bad.service has not failed                      | steps-bad.service is                                 |
      | the unit nothing.service has not failed                        | nothing.service is not-found                         |
      | the unit rescue.service ran with the result success            | rescue.service has not run                           |
      | the unit dbus.service ran with the result exit-code            | dbus.service ran with the result success             |
      | the unit dbus.service has the property Type "simple"           | Type of dbus.service is 'notify'                     |
      | the unit dbus.service has the property Nothing "simple"        | dbus.service has no property Nothing                 |
      | the unit nothing.service has the property Type "simple"        | nothing.service is not-found                         |
      | the unit dbus.service has the property Type matching /^s/      | Type of dbus.service is 'notify', which does not     |
      | the unit dbus.service is ordered after nothing.service         | dbus.service is not ordered after nothing.service    |
      | the unit dbus.service is not ordered after dbus.socket         | dbus.service is ordered after dbus.socket            |
      | the timer nothing.timer will elapse                            | nothing.timer is inactive                            |
      | no unit has failed                                             | failed: steps-bad.service                            |
      | I start the unit nothing.service                               | gave exit status 5                                   |
      | I stop the unit nothing.service                                | gave exit status 5                                   |
      | I restart the unit nothing.service                             | gave exit status 5                                   |

  Scenario: Units of the user
    Given the file /run/systemd/user/steps-good.service with the text
      """
      [Service]
      Type=oneshot
      RemainAfterExit=yes
      ExecStart=/bin/sh -c "echo said by the user"
      [Install]
      WantedBy=default.target
      """
    And the file /run/systemd/user/steps-bad.service with the text
      """
      [Service]
      Type=oneshot
      ExecStart=/bin/false
      """
    And the file /run/systemd/user/steps-good.timer with the text
      """
      [Timer]
      OnActiveSec=1d
      """
    When I run `systemctl --user daemon-reload; systemctl --user reset-failed` as the user
    Then it succeeds
    And the user unit steps-good.service exists
    And the user unit steps-good.service is not active
    And the user unit steps-good.service is not enabled
    And the user unit steps-good.service has not failed
    And the user unit steps-other.service does not exist
    And no user unit has failed
    When I start the user unit steps-good.service
    And I start the user unit steps-good.timer
    Then the user unit steps-good.service is active
    And the user unit steps-good.service is active within 10 seconds
    And the user unit steps-good.service ran with the result success
    And the user unit steps-good.service has the property Type "oneshot"
    And the user unit steps-good.service has the property ExecStart matching /bin.sh/
    And the user timer steps-good.timer will elapse
    And the journal of the user unit steps-good.service since the scenario began contains "said by the user"
    When I restart the user unit steps-good.service
    And I stop the user unit steps-good.service
    And I stop the user unit steps-good.timer
    Then the user unit steps-good.service is not active
    And the user unit dbus.socket is enabled
    When I run `systemctl --user --runtime mask steps-masked.service; systemctl --user start steps-bad.service` as the user
    Then it fails
    And the user unit steps-masked.service is masked
    And the user unit steps-bad.service has failed

  Scenario Outline: Units of the user fail: <step>
    Then <step>

    Examples:
      | step                                                           | message                                                   |
      | the user unit steps-bad.service is active                      | the user unit steps-bad.service is failed                 |
      | the user unit steps-bad.service is active within 5 seconds     | steps-bad.service will not become active                  |
      | the user unit dbus.socket is not active                        | the user unit dbus.socket is active                       |
      | the user unit nothing.service exists                           | the user unit nothing.service is not-found                |
      | the user unit dbus.service does not exist                      | the user unit dbus.service is loaded                      |
      | the user unit nothing.service is enabled                       | the user unit nothing.service is not enabled              |
      | the user unit dbus.socket is not enabled                       | the user unit dbus.socket is                              |
      | the user unit dbus.service is masked                           | the user unit dbus.service is loaded                      |
      | the user unit dbus.socket has failed                           | the user unit dbus.socket is active                       |
      | the user unit steps-bad.service has not failed                 | the user unit steps-bad.service is                        |
      | the user unit nothing.service ran with the result success      | the user unit nothing.service has not run                 |
      | the user unit dbus.socket has the property LoadState "masked"  | LoadState of the user unit dbus.socket is 'loaded'        |
      | the user unit dbus.socket has the property Id matching /^x/    | Id of the user unit dbus.socket is 'dbus.socket'          |
      | the user timer nothing.timer will elapse                       | the user unit nothing.timer is inactive                   |
      | no user unit has failed                                        | failed: steps-bad.service                                 |
      | I start the user unit nothing.service                          | gave exit status 5                                        |
      | I stop the user unit nothing.service                           | gave exit status 5                                        |
      | I restart the user unit nothing.service                        | gave exit status 5                                        |

  Scenario: The journal
    When I run `logger --tag steps --priority user.err "a first message"; journalctl --sync`
    Then it succeeds
    And the journal contains "a first message"
    And the journal with priority err or worse since the scenario began contains "a first message"
    And the journal with priority crit or worse since the scenario began does not contain "a first message"
    And the journal does not contain "a message that nobody wrote"
    And the journal of the unit dbus.service does not match /a first \w+/
    And the journal of the unit nothing.service is empty
    And no process has dumped core
    And bash has not dumped core

  Scenario: The journal of a scenario has nothing of those before
    Then the journal since the scenario began does not contain "a first message"
    And the journal contains "a first message"

  Scenario Outline: The journal fails: <step>
    Then <step>

    Examples:
      | step                                                              | message                                              |
      | the journal contains "a message that nobody wrote"                | no message of the journal contains                   |
      | the journal of the unit nothing.service contains "first"          | It has no messages.                                  |
      | the journal does not contain "a first message"                    | messages of the journal contain 'a first message'    |
      | the journal matches /nobody wrote it/                             | no message of the journal matches                    |
      | the journal does not match /a first \w+/                          | messages of the journal match                        |
      | the journal is empty                                              | the journal has                                      |

  Scenario: A process that dumps core
    When I run `cp -L /bin/sh /var/tmp/steps-shell; /var/tmp/steps-shell -c 'kill -SEGV $$'`
    And I wait until `journalctl --boot MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1 | grep steps-shell` succeeds
    Then bash has not dumped core

  Scenario Outline: A process has dumped core: <step>
    Then <step>

    Examples:
      | step                               | message                        |
      | no process has dumped core         | processes have dumped core     |
      | steps-shell has not dumped core    | steps-shell has dumped core    |

  Scenario: D-Bus
    Then the name org.freedesktop.login1 is owned on the system bus
    And the name org.example.Nobody is not owned on the system bus
    And the name org.freedesktop.hostname1 can be activated on the system bus
    And the object /org/freedesktop/login1 of org.freedesktop.login1 has the interface org.freedesktop.login1.Manager on the system bus
    And the property KillUserProcesses of org.freedesktop.login1.Manager at /org/freedesktop/login1 of org.freedesktop.login1 on the system bus is "false"
    When I call Ping of org.freedesktop.DBus.Peer at /org/freedesktop/login1 of org.freedesktop.login1 on the system bus
    Then it succeeds
    When I call NameHasOwner of org.freedesktop.DBus at /org/freedesktop/DBus of org.freedesktop.DBus on the system bus with `s org.freedesktop.login1`
    Then it succeeds
    And the JSON value at data[0] is "true"
    And the name org.freedesktop.systemd1 is owned on the session bus
    And the name org.example.Nobody is not owned on the session bus
    And the name org.freedesktop.portal.Desktop can be activated on the session bus
    And the object /org/freedesktop/systemd1 of org.freedesktop.systemd1 has the interface org.freedesktop.systemd1.Manager on the session bus
    And the property Architecture of org.freedesktop.systemd1.Manager at /org/freedesktop/systemd1 of org.freedesktop.systemd1 on the session bus is "x86-64"
    When I call Ping of org.freedesktop.DBus.Peer at /org/freedesktop/systemd1 of org.freedesktop.systemd1 on the session bus
    Then it succeeds
    When I call NameHasOwner of org.freedesktop.DBus at /org/freedesktop/DBus of org.freedesktop.DBus on the session bus with `s org.freedesktop.systemd1`
    Then it succeeds

  Scenario Outline: D-Bus fails: <step>
    Then <step>

    Examples:
      | step                                                                                                                                        | message                                           |
      | the name org.example.Nobody is owned on the system bus                                                                                      | nobody owns org.example.Nobody on the system bus  |
      | the name org.freedesktop.DBus is not owned on the system bus                                                                                | somebody owns org.freedesktop.DBus                |
      | the name org.example.Nobody can be activated on the system bus                                                                              | the system bus knows nobody to start              |
      | the object /org/freedesktop/DBus of org.freedesktop.DBus has the interface a.B on the system bus                                            | does not have the interface a.B                   |
      | the object / of org.example.Nobody has the interface a.B on the system bus                                                                  | / of org.example.Nobody does not tell             |
      | the property Version of org.freedesktop.systemd1.Manager at /org/freedesktop/systemd1 of org.freedesktop.systemd1 on the system bus is "0"  | Version of /org/freedesktop/systemd1 is           |
      | the name org.example.Nobody is owned on the session bus                                                                                     | nobody owns org.example.Nobody on the session bus |
      | the name org.freedesktop.DBus is not owned on the session bus                                                                               | somebody owns org.freedesktop.DBus                |
      | the name org.example.Nobody can be activated on the session bus                                                                             | the session bus knows nobody to start             |
      | the object /org/freedesktop/DBus of org.freedesktop.DBus has the interface a.B on the session bus                                           | does not have the interface a.B                   |
      | the object / of org.example.Nobody has the interface a.B on the session bus                                                                 | / of org.example.Nobody does not tell             |
      | the property Version of org.freedesktop.systemd1.Manager at /org/freedesktop/systemd1 of org.freedesktop.systemd1 on the session bus is "0" | Version of /org/freedesktop/systemd1 is           |

  Scenario: An administrator's settings
    Given the file /etc/dconf/db/distro.d/99-steps with the text
      """
      [org/gnome/desktop/interface]
      color-scheme='prefer-dark'
      font-name='Adwaita Sans 11'
      """
    And the file /etc/dconf/db/distro.d/locks/steps with the text
      """
      /org/gnome/desktop/lockdown/disable-command-line
      """
    Then `dconf update` succeeds

  Scenario: Settings
    Then the setting org.gnome.desktop.interface color-scheme is "prefer-dark"
    And the setting org.gnome.desktop.interface font-name contains "Adwaita"
    And the setting org.gnome.desktop.interface font-name does not contain "Cantarell"
    And the setting org.gnome.desktop.interface font-name matches /Sans \d+/
    And the setting org.gnome.desktop.interface clock-format exists
    And the setting org.gnome.desktop.interface color-scheme can be changed
    And the setting org.gnome.desktop.lockdown disable-command-line cannot be changed
    And the dconf key /org/gnome/desktop/interface/color-scheme is "prefer-dark"
    And the dconf folder /org/gnome/ is not empty
    When I set the setting org.gnome.desktop.interface color-scheme to "'default'"
    Then the setting org.gnome.desktop.interface color-scheme is "default"

  Scenario: Settings are restored
    Then the setting org.gnome.desktop.interface color-scheme is "prefer-dark"

  Scenario Outline: Settings fail: <step>
    Then <step>

    Examples:
      | step                                                                         | message                                           |
      | the setting org.gnome.desktop.interface color-scheme is "default"            | color-scheme is 'prefer-dark', not default        |
      | the setting org.gnome.desktop.interface font-name contains "Cantarell"       | font-name is 'Adwaita Sans 11'                    |
      | the setting org.gnome.desktop.interface font-name does not contain "Sans"    | font-name is 'Adwaita Sans 11'                    |
      | the setting org.gnome.desktop.interface font-name matches /^Sans/            | which does not match /^Sans/                      |
      | the setting org.example.Nothing key exists                                   | there is no setting org.example.Nothing key       |
      | the setting org.gnome.desktop.lockdown disable-command-line can be changed   | disable-command-line cannot be changed            |
      | the setting org.gnome.desktop.interface color-scheme cannot be changed       | color-scheme can be changed                       |
      | I set the setting org.gnome.desktop.lockdown disable-command-line to "true"  | cannot be set to true                             |
      | the dconf key /org/gnome/desktop/interface/color-scheme is "default"         | color-scheme is 'prefer-dark', not default        |
      | the dconf key /org/example/nothing is "default"                              | the dconf key /org/example/nothing is not set     |
      | the dconf folder /org/example/ is not empty                                  | the dconf folder /org/example/ is empty           |

  Scenario: Desktop entries
    Given the file /var/home/tester/.config/mimeapps.list with the text
      """
      [Default Applications]
      x-scheme-handler/steps=kitty.desktop
      """
    Then the desktop entry kitty exists
    And the desktop entry kitty.desktop is valid
    And all desktop entries in /usr/share/applications are valid
    And the default application for x-scheme-handler/steps is kitty

  Scenario Outline: Desktop entries fail: <step>
    Given the file /var/lib/flatpak/exports/share/applications/steps.desktop with the text
      """
      [Desktop Entry]
      Name=Steps
      """
    Then <step>

    Examples:
      | step                                                                            | message                                  |
      | the desktop entry no.such.thing exists                                          | there is no desktop entry no.such.thing  |
      | the desktop entry steps is valid                                                | steps.desktop is not valid               |
      | all desktop entries in /var/lib/flatpak/exports/share/applications are valid    | not all desktop entries in               |
      | all desktop entries in /usr/share/pixmaps are valid                             | not all desktop entries in               |
      | the default application for x-scheme-handler/nothing is kitty                   | is not set, not kitty                    |

  Scenario: Flatpak
    Then the Flatpak org.example.Hello is installed
    And the Flatpak org.example.Other is not installed
    And these Flatpaks are installed
      | id                |
      | org.example.Hello |
    And the Flatpak org.example.Hello comes from the remote local
    And the Flatpak remote local exists
    And the Flatpak remote fedora does not exist
    And the Flatpak org.example.Hello has the permission filesystems xdg-download:ro
    And the Flatpak org.example.Hello does not have the permission filesystems host

  Scenario Outline: Flatpak fails: <step>
    Then <step>

    Examples:
      | step                                                                             | message                                              |
      | the Flatpak org.example.Other is installed                                       | the Flatpak org.example.Other is not installed       |
      | the Flatpak org.example.Hello is not installed                                   | the Flatpak org.example.Hello is installed           |
      | the Flatpak org.example.Hello comes from the remote flathub                      | comes from local, not from flathub                   |
      | the Flatpak org.example.Other comes from the remote local                        | the Flatpak org.example.Other is not installed       |
      | the Flatpak remote fedora exists                                                 | there is no Flatpak remote fedora                    |
      | the Flatpak remote local does not exist                                          | there is a Flatpak remote local                      |
      | the Flatpak org.example.Hello has the permission filesystems host                | does not have the permission filesystems host        |
      | the Flatpak org.example.Hello does not have the permission shared ipc            | has the permission shared ipc                        |
      | the Flatpak org.example.Other does not have the permission shared ipc            | the permissions of org.example.Other cannot be told  |

  Scenario Outline: Flatpaks fail
    Then these Flatpaks are installed
      | id                |
      | org.example.Hello |
      | org.example.Other |

    Examples:
      | message                           |
      | not installed: org.example.Other  |

  Scenario: Podman
    When I run `podman load --input /usr/share/test-images/busybox.tar` within 120 seconds
    Then it succeeds
    When I run `podman load --input /usr/share/test-images/busybox.tar` as the user within 120 seconds
    Then it succeeds
    And the container image localhost/busybox:latest exists
    And the user's container image localhost/busybox:latest exists
    When I run `id -u; echo in it` in a container of localhost/busybox:latest
    Then it succeeds
    And the output contains "in it"
    When I run `id -u; echo in it` in a container of localhost/busybox:latest as the user
    Then it succeeds
    And Podman says that host.security.rootless is "false"
    And Podman says to the user that host.security.rootless is "true"

  Scenario Outline: Podman fails: <step>
    Then <step>

    Examples:
      | step                                                        | message                                        |
      | the container image localhost/nothing:latest exists         | Podman has no image localhost/nothing:latest   |
      | the user's container image localhost/nothing:latest exists  | Podman has no image localhost/nothing:latest   |
      | Podman says that host.security.rootless is "true"           | host.security.rootless is 'false', not 'true'  |
      | Podman says to the user that host.security.rootless is "no" | host.security.rootless is 'true', not 'no'     |

  Scenario: polkit
    Then the polkit action org.freedesktop.login1.power-off exists
    And polkit allows org.freedesktop.login1.inhibit-delay-sleep to the user
    And polkit does not allow org.freedesktop.login1.power-off to the user

  Scenario Outline: polkit fails: <step>
    Then <step>

    Examples:
      | step                                                                      | message                                              |
      | the polkit action org.example.nothing exists                              | polkit does not know the action org.example.nothing  |
      | polkit allows org.freedesktop.login1.power-off to the user                | polkit does not allow org.freedesktop.login1.power   |
      | polkit does not allow org.freedesktop.login1.inhibit-delay-sleep to the user | polkit allows org.freedesktop.login1.inhibit      |
      | polkit does not allow org.example.nothing to the user                     | polkit does not know the action org.example.nothing  |

  Scenario: The system and its files
    When I run the script
      """
      cp /bin/true /var/tmp/steps-capable
      /usr/sbin/setcap cap_net_raw=ep /var/tmp/steps-capable
      python3 -c 'import os; os.setxattr("/var/tmp/steps-capable", "security.selinux", b"system_u:object_r:bin_t:s0")'
      """
    Then it succeeds
    And the file /var/tmp/steps-capable has the capability cap_net_raw
    And the file /var/tmp/steps-capable has the SELinux type bin_t
    And the package bash is installed
    And the package no-such-package is not installed
    And /usr is on a read-only file system
    And the kernel module ext4 is loaded
    And the kernel argument nomodeset is not given
    And the kernel argument console is given

  Scenario Outline: The system and its files fail: <step>
    Then <step>

    Examples:
      | step                                       | message                                             |
      | the package bash is not installed          | dpkg has the package bash                           |
      | /usr is on a writable file system          | which is read-only                                  |
      | the kernel argument console is not given   | the kernel argument console is given                |
