# Lines of sshd and sudo that say what made-up events say, see testdata/README.md.
select(.type | IN("LOGIN_SUCCESS", "LOGIN_FAILED", "MFA_FAILED", "ADMIN_CHANGE", "CONFIG_CHANGE")) |
(.event_id | .[-4:] | tonumber) as $number |
(.timestamp / 1000 | floor | strftime("%b %e %H:%M:%S")) as $time |
"from \(.source_ip) port \(32768 + $number) ssh2" as $from |
if .type == "LOGIN_SUCCESS" then
    "\($time) web1 sshd[\(20000 + $number)]: Accepted publickey for \(.user) \($from): ED25519 SHA256:\(.metadata.device | @base64 | rtrimstr("="))"
elif .type | endswith("_FAILED") then
    "\($time) web1 sshd[\(20000 + $number)]: Failed \(if .type == "MFA_FAILED" then "keyboard-interactive/pam" else "password" end) for \(.user) \($from)"
else
    "\($time) web1 sudo: \(.user) : TTY=pts/0 ; PWD=/home/\(.user) ; USER=root ; COMMAND=/usr/bin/\(if .type == "ADMIN_CHANGE" then "useradd" else "systemctl" end) \(.metadata.endpoint)"
end
