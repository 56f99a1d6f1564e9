# Files of CloudTrail, one a line and day, that say what made-up events say, see testdata/README.md.
def calls: {
    LOGIN_SUCCESS: ["signin", "ConsoleLogin"], LOGIN_FAILED: ["signin", "ConsoleLogin"], MFA_FAILED: ["signin", "ConsoleLogin"],
    FILE_ACCESS: ["s3", "GetObject"], FILE_DOWNLOAD: ["s3", "GetObject"], DB_QUERY: ["secretsmanager", "GetSecretValue"],
    ACCESS_DENIED: ["secretsmanager", "GetSecretValue"], API_CALL: ["ec2", "DescribeInstances"],
    ADMIN_CHANGE: ["iam", "AttachUserPolicy"], CONFIG_CHANGE: ["s3", "PutBucketPolicy"]
};
def identity: # of a user's number
    "123456789012" as $account |
    if . < 6 then {type: "IAMUser", principalId: "AIDA\(.)EXAMPLE", arn: "arn:aws:iam::\($account):user/user\(.)",
        accountId: $account, accessKeyId: "AKIA\(.)EXAMPLE", userName: "user\(.)"}
    else (if . < 9 then ["AWSReservedSSO_Admins_0123456789abcdef", "user\(.)@example.org"] else ["app", "i-0\(.)"] end) as [$role, $session] |
        {type: "AssumedRole", principalId: "AROA\(.)EXAMPLE:\($session)", arn: "arn:aws:sts::\($account):assumed-role/\($role)/\($session)",
            accountId: $account, accessKeyId: "ASIA\(.)EXAMPLE",
            sessionContext: {sessionIssuer: {type: "Role", userName: $role, accountId: $account}, attributes: {mfaAuthenticated: "true"}}}
    end;
def record:
    calls[.type] as [$service, $call] | (.metadata.endpoint | ltrimstr("/")) as $path |
    {eventVersion: "1.11", userIdentity: (.user | ltrimstr("user") | tonumber | identity),
        eventTime: (.timestamp / 1000 | floor | todate), eventSource: "\($service).amazonaws.com", eventName: $call,
        awsRegion: "eu-central-1", sourceIPAddress: .source_ip, userAgent: .metadata.user_agent,
        eventID: (.event_id | "00000000-0000-4000-8000-00000" + .[-7:]), eventType: (if $service == "signin" then "AwsConsoleSignIn" else "AwsApiCall" end)} +
    (if $service == "signin" then
        {responseElements: {ConsoleLogin: (if .type == "LOGIN_SUCCESS" then "Success" else "Failure" end)}, additionalEventData: {MFAUsed: "Yes"}}
    elif $service == "s3" then
        {requestParameters: {bucketName: "example-files", key: $path}, additionalEventData: {bytesTransferredOut: .metadata.bytes}}
    elif $service == "secretsmanager" then
        {resources: [{ARN: "arn:aws:secretsmanager:eu-central-1:123456789012:secret:\($path)"}]} +
        (if .type == "ACCESS_DENIED" then {errorCode: "AccessDenied"} else {} end)
    else {} end);
[.[] | select(.type as $type | calls | has($type))] | group_by(.timestamp / 86400000 | floor)[] | {Records: map(record)}
