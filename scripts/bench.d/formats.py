"""What it costs to read other formats: the same events as ours, and as Okta, ECS, CloudTrail and sshd write them,
through sg-consume with one thread, next to jq that parses the records and next to jq that maps one of them.
Arguments: [EVENTS=300000] [USERS=10000] [ROUNDS=3]"""

import json
import os
import subprocess
import sys
import tempfile
import time

n_events, n_users, n_rounds = [int(arg) for arg in sys.argv[1:]] + [300_000, 10_000, 3][len(sys.argv) - 1 :]

OKTA = {
    "LOGIN_SUCCESS": "user.session.start", "LOGIN_FAILED": "user.session.start", "MFA_FAILED": "user.authentication.auth_via_mfa",
    "MFA_SUCCESS": "user.authentication.auth_via_mfa", "ADMIN_CHANGE": "group.user_membership.add",
}
# What somebody writes who maps Okta with jq.
JQ_OKTA = """{event_id: .uuid, user: .actor.alternateId, timestamp: (.published | sub("\\\\.[0-9]+Z"; "Z") | fromdate * 1000),
type: .eventType, source_ip: .client.ipAddress, status: (.outcome.result | ascii_downcase),
geo_location: "\\(.client.geographicalContext.city), \\(.client.geographicalContext.country)",
metadata: {user_agent: .client.userAgent.rawUserAgent, device: .device.id, asn: .securityContext.asNumber, endpoint: .debugContext.debugData.requestUri}}"""


def iso(ms):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03}Z"


def okta(e):
    m = e["metadata"]
    city, country = (e.get("geo_location") or "Berlin, DE").split(", ")[:2]
    failed = e.get("status") in ("failed", "blocked")
    return json.dumps({
        "actor": {"id": "00u" + e["user"], "type": "User", "alternateId": e["user"], "displayName": e["user"]},
        "client": {"userAgent": {"rawUserAgent": m.get("user_agent"), "os": "Mac OS X", "browser": "CHROME"}, "zone": "null", "device": "Computer", "id": None,
                   "ipAddress": e.get("source_ip"), "geographicalContext": {"city": city, "state": None, "country": country, "postalCode": None}},
        "device": {"id": m.get("device")}, "authenticationContext": {"authenticationStep": 0, "externalSessionId": "idx" + e["event_id"]},
        "displayMessage": "An event", "eventType": OKTA.get(e["type"], "user.authentication.sso"), "outcome": {"result": "FAILURE" if failed else "SUCCESS", "reason": None},
        "published": iso(e["timestamp"]), "securityContext": {"asNumber": m.get("asn"), "asOrg": "example", "isp": "example", "isProxy": False},
        "severity": "INFO", "debugContext": {"debugData": {"requestUri": m.get("endpoint"), "dtHash": "ab1"}}, "uuid": e["event_id"], "version": "0",
    }, separators=(",", ":"))


def ecs(e):
    m = e["metadata"]
    failed = e.get("status") in ("failed", "blocked")
    sign_in = e["type"].startswith(("LOGIN", "MFA"))
    return json.dumps({
        "@timestamp": iso(e["timestamp"]), "ecs": {"version": "8.11.0"},
        "event": {"id": e["event_id"], "kind": "event", "category": ["authentication" if sign_in else "file"], "type": ["start" if sign_in else "access"],
                  "action": e["type"].lower(), "outcome": "failure" if failed else "success"},
        "user": {"name": e["user"]}, "source": {"ip": e.get("source_ip"), "as": {"number": m.get("asn")}}, "user_agent": {"original": m.get("user_agent")},
        "url": {"path": m.get("endpoint")}, "host": {"name": "web1"},
    }, separators=(",", ":"))


def cloudtrail(e):
    m = e["metadata"]
    name = e["user"]
    record = {
        "eventVersion": "1.11", "userIdentity": {"type": "IAMUser", "principalId": "AIDA" + name, "arn": "arn:aws:iam::123456789012:user/" + name,
                                                 "accountId": "123456789012", "accessKeyId": "AKIA" + name.upper(), "userName": name},
        "eventTime": iso(e["timestamp"])[:19] + "Z", "eventSource": "s3.amazonaws.com", "eventName": "GetObject", "awsRegion": "eu-central-1",
        "sourceIPAddress": e.get("source_ip"), "userAgent": m.get("user_agent"), "requestParameters": {"bucketName": "files", "key": m.get("endpoint")},
        "responseElements": None, "additionalEventData": {"bytesTransferredOut": 512}, "requestID": "R" + e["event_id"], "eventID": e["event_id"],
        "readOnly": True, "eventType": "AwsApiCall", "managementEvent": False, "recipientAccountId": "123456789012",
    }
    if e.get("status") in ("failed", "blocked"):
        record["errorCode"] = "AccessDenied"
    return json.dumps(record, separators=(",", ":"))


def sshd(e):
    stamp = time.strftime("%b %e %H:%M:%S", time.gmtime(e["timestamp"] // 1000))
    how = "Failed password" if e.get("status") in ("failed", "blocked") else "Accepted publickey"
    return f"{stamp} web1 sshd[4711]: {how} for {e['user']} from {e.get('source_ip') or '192.0.2.1'} port 32772 ssh2"


def seconds(command, path):
    with open(path, "rb") as lines:
        start = time.perf_counter()
        subprocess.run(command, stdin=lines, stdout=open(os.devnull, "wb"), check=True)
        return time.perf_counter() - start


with tempfile.TemporaryDirectory() as folder:
    def path(name):
        return os.path.join(folder, name)

    with open(path("streamguard"), "w") as lines:
        subprocess.run(["sg-gen", "--events", str(n_events), "--users", str(n_users), "--seed", "1"], stdout=lines, check=True)
    forms = {"okta": okta, "ecs": ecs, "cloudtrail": cloudtrail, "sshd": sshd}
    files = {name: open(path(name), "w") for name in forms}
    for line in open(path("streamguard")):
        event = json.loads(line)
        for name, form in forms.items():
            files[name].write(form(event) + "\n")
    for file in files.values():
        file.close()

    runs = {("streamguard", "sg-consume"): ["sg-consume", "-q", "-j", "1"]}
    for name in forms:
        runs[name, "sg-consume"] = ["sg-consume", "-q", "-j", "1", "--format", name]
        runs[name, "--format auto"] = ["sg-consume", "-q", "-j", "1", "--format", "auto"]
        if name != "sshd":
            runs[name, "jq -c ."] = ["jq", "-c", "."]
    runs["okta", "jq, mapping"] = ["jq", "-c", JQ_OKTA]
    best = {}
    for _ in range(n_rounds):
        for (name, what), command in runs.items():
            took = seconds(command, path(name))
            best[name, what] = min(took, best.get((name, what), took))

    native = best["streamguard", "sg-consume"]
    sizes = {name: os.path.getsize(path(name)) for name in ["streamguard", *forms]}
    print(f"{n_events} events of {n_users} users, one thread, best of {n_rounds} rounds in turns:\n")
    print("| records | bytes each | by | events/s | MB/s | time an event, of ours |")
    print("|---|--:|---|--:|--:|--:|")
    for (name, what), took in best.items():
        mb = sizes[name] / took / 1e6
        print(f"| {name} | {sizes[name] // n_events} | {what} | {n_events / took:.0f} | {mb:.0f} | {took / native:.2f} |")
    print("\nMapping, as the time beyond that of reading as many bytes of our own events, of that time:")
    for name in forms:
        of_bytes = native * sizes[name] / sizes["streamguard"]
        print(f"  {name}: {(best[name, 'sg-consume'] - of_bytes) / of_bytes:.2f}")
