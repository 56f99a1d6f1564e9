# Events from the files that AWS CloudTrail writes, {"Records":[...]}, read one after the other:
#
#     zcat *.json.gz | jq -c -f cloudtrail.jq
#
# Whose habits an event is about: an IAM user's and the root user's, of their account; a person's who has come through
# IAM Identity Center, whatever account they work in; else a role's, since names of its sessions come and go.
# A type is the name of the call, but LOGIN_SUCCESS or LOGIN_FAILED of a sign-in to the console.

def account: .userIdentity.accountId // .recipientAccountId // "unknown";
def role: .userIdentity.sessionContext.sessionIssuer.userName // "";
def session: .userIdentity.arn // "" | split("/") | last // "";

def who:
    .userIdentity as $identity |
    if $identity.type == "Root" then "root@\(account)"
    elif $identity.type == "IAMUser" then "\($identity.userName)@\(account)"
    elif $identity.type == "AssumedRole" and (role | startswith("AWSReservedSSO_")) then session
    elif $identity.type == "AssumedRole" and role != "" then "role/\(role)@\(account)"
    else $identity.userName // $identity.onBehalfOf.userId // $identity.invokedBy // $identity.principalId // "unknown" end;

def is_sign_in: .eventName == "ConsoleLogin";
def is_denied: .errorCode // "" | test("AccessDenied|Unauthorized|AuthFailure|Forbidden");
def status:
    if is_sign_in and .responseElements.ConsoleLogin != "Success" then "failed"
    elif is_denied then "blocked"
    elif .errorCode then "failed"
    else "success" end;

def resource:
    (.eventSource | rtrimstr(".amazonaws.com")) as $service |
    if .requestParameters.bucketName then "\($service)/\(.requestParameters.bucketName)/\(.requestParameters.key // "")"
    else .resources[0].ARN? // $service end;

.Records[]? |
status as $status |
# Services call too; then this is their name, or `AWS Internal`.
(.sourceIPAddress // "" | if test("^[0-9.]+$|:") then {source_ip: .} else {} end) as $address |
{event_id: .eventID, user: who, timestamp: (.eventTime | fromdate * 1000)} +
{type: (if is_sign_in then (if $status == "success" then "LOGIN_SUCCESS" else "LOGIN_FAILED" end) else .eventName end)} +
$address +
{status: $status} +
{metadata: ({
    endpoint: resource,
    user_agent: .userAgent,
    # Temporary keys (ASIA...) are new each time.
    device: (.userIdentity.accessKeyId // "" | if startswith("AKIA") then . else null end),
    bytes: .additionalEventData.bytesTransferredOut,
    region: .awsRegion, account: account, identity: .userIdentity.type, session: session,
    mfa: (.additionalEventData.MFAUsed // .userIdentity.sessionContext.attributes.mfaAuthenticated),
    error: .errorCode
} | with_entries(select(.value != null and .value != "")))}
