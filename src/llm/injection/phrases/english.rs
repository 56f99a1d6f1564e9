//! What is said in English.

use super::{ADDRESS, EXFILTRATION, MARKER, OVERRIDE, ROLE, Rule, VERDICT, rule};

const IGNORE: &str = "ignore, ignoring, ignor, igonre, ingore, ignroe, disregard, disregarding, forget, forgetting, \
    override, overrule, bypass, skip, neglect, discard, circumvent, abandon, erase, cancel, pay no attention to, \
    set aside, do not follow, dont follow, do not obey, dont obey, do not listen to, stop following, stop obeying, \
    no longer follow, never follow";
const PREVIOUS: &str = "previous, previously, previus, previos, prevoius, prevous, prior, above, earlier, preceding, \
    foregoing, aforementioned, former, initial, original, your, yours, safety, you were given, you have been given, \
    given to you, given above, given earlier, given before, system prompt, developers";
const INSTRUCTIONS: &str = "instruct*, instrution*, instuction*, insturction*, intruction*, prompt, prompts, rule, rules, \
    direction, directions, directive*, guideline*, guidance, command, commands, orders, constraint, constraints, \
    restrictions, programming, safeguards, guardrails";
const BEFORE: &str = "above, earlier, previously, before, preceding, you were given, you have been given, given to you";
const EVERYTHING: &str = "everything, anything, all, whatever, what";
const TOLD: &str = "above, before this, before that, before now, you were told, you have been told, you were given, \
    you know, you read, you have read, you learned, was said before, said before, told before, written before, \
    up to now, until now";
const TASK: &str =
    "task, tasks, instructions, instruction, objective, goal, job, purpose, mission, orders, role";
const MODEL: &str = "ai, llm, gpt, chatgpt, chatbot, claude, gemini, copilot, assistant, language model, \
    large language model, ai model, the model, ai agent, ai analyst, artificial intelligence, machine learning model";
const FREE: &str = "without restrictions, without any restrictions, without rules, without any rules, without filters, \
    without limits, without limitations, no restrictions, no rules, no filters, no limits, no limitations, \
    unrestricted, unfiltered, uncensored, jailbroken";

const JUDGE: &str = "mark, marked, classify, classified, treat, treated, rate, rated, label, labelled, labeled, flag, flagged, \
    consider, considered, report, reported, categorize, categorise, categorized, tag, tagged, score, scored, regard, \
    regarded, assess, assessed, deem, deemed, judge, judged, rank, evaluate, evaluated, set, log, grade, record";
const EVENT: &str = "event, events, request, requests, activity, traffic, login, logins, session, sessions, alert, alerts, \
    entry, entries, record, records, log, logs, behavior, behaviour, command, connection, connections, scan, access, \
    transaction, sign in, message, file, address, query, incident, finding, anomaly";
const THIS: &str = "this, it, me, them, us, these, event, events, request, requests, activity, traffic, login, session, alert, \
    entry, behavior, behaviour, connection";
const BENIGN: &str = "benign, harmless, false positive, false positives, false alarm, false alert, not malicious, \
    non malicious, not suspicious, not an attack, not a threat, no threat, innocuous, legitimate, unsuspicious, \
    not anomalous, risk free";
const FINE: &str = "safe, normal, low, low risk, lowest, trusted, expected, routine, clean, informational, info, fine, ok, \
    approved, authorized, authorised, allowed, resolved, closed, none, non threatening";
const LOW: &str = "low, lowest, none, info, informational, information, benign, zero, minimal, minimum, negligible, safe, null";
const SEVERITY: &str = "severity, risk, risk level, risk score, threat score, threat level, anomaly score, priority, verdict";
const ONLY: &str = "respond only with, reply only with, answer only with, respond only, reply only, answer only, output only, \
    only respond with, only reply with, only answer with, only respond, only reply, only answer, only output, \
    you only output, just say, just answer, just respond, just reply, simply say, simply answer, simply respond, \
    respond with, reply with, answer with, answer, respond, always answer, always respond, output, say only, only say";
const ANSWER: &str = "ok, okay, yes, benign, safe, severity low, low severity, the word, the words, one word, the following, \
    the phrase, the string, nothing, low, only, harmless, no threat, no threats, approved";

const REVEAL: &str = "repeat, reveal, print, show, output, display, tell, dump, leak, disclose, share, expose, recite, \
    what is, what are, what were, whats, give me, append, quote, echo, return, summarise, summarize, translate, send, \
    include, write down, write out, paste, type out, spell out";
const YOURS: &str = "your, your own, your full, your entire, your hidden, your secret, your initial, your original, your system, \
    the system, the hidden, the secret, the initial, the original, the full";
const PROMPT: &str = "prompt, prompts, instruct*, rules are, guidelines, system message, system messages, system prompt, \
    api key, api keys, context, context window, configuration, conversation, programming, directives";

pub(super) const RULES: &[Rule] = &[
    rule(OVERRIDE, 24, &[IGNORE, PREVIOUS, INSTRUCTIONS]),
    rule(OVERRIDE, 16, &[IGNORE, INSTRUCTIONS, BEFORE]),
    rule(
        OVERRIDE,
        12,
        &[
            IGNORE,
            "system, developer, hidden, all",
            "prompt, prompts, instructions, instruction",
        ],
    ),
    rule(OVERRIDE, 12, &[IGNORE, EVERYTHING, TOLD]),
    rule(
        OVERRIDE,
        6,
        &[
            "ignore, disregard, forget, do not follow, pay no attention to",
            "the above, all of the above, \
        all above, what you were told, your training, your rules",
        ],
    ),
    rule(
        OVERRIDE,
        16,
        &[
            "instruct*, rules, guidelines, directives, prompt, prompts",
            "above, previous, earlier, before, prior, your",
            "no longer appl*, no longer valid, do not apply, are cancelled, \
        are canceled, are void, are revoked, are obsolete, are outdated, are superseded, are replaced, were a test",
        ],
    ),
    rule(
        OVERRIDE,
        16,
        &[
            "previous, prior, earlier, above, your, original",
            "instruct*, rules, guidelines, directives, prompt",
            "no longer appl*, no longer valid, do not apply, cancelled, canceled, void, revoked, obsolete, outdated, superseded, \
        replaced, expired, a test, suspended",
        ],
    ),
    rule(
        OVERRIDE,
        8,
        &[
            "everything before this, everything above, all of the above, the text above, everything so far",
            "was a test, is a test, was only a test, is fake, was fake, is wrong, is void, is irrelevant, was a joke",
        ],
    ),
    rule(
        OVERRIDE,
        8,
        &[
            "your new, your real, your actual, your true, your next, your only, your updated",
            TASK,
            "is, are, will be, now",
        ],
    ),
    rule(
        OVERRIDE,
        10,
        &[
            "new instruct*, new task, new tasks, updated instruct*, revised instruct*, additional instruct*, \
        important instruct*, special instruct*, new system prompt, new directive",
            MODEL,
        ],
    ),
    rule(
        OVERRIDE,
        6,
        &[
            "new instruct*, updated instruct*, new task, revised instruct*, new rules",
            ":",
            "you, answer, respond, reply, say, output, mark, classify, ignore, set, treat, report, always, never, do not",
        ],
    ),
    rule(
        OVERRIDE,
        16,
        &[
            "from now on, henceforth, from this point on, from here on",
            "follow, obey, you will, you must, you are, \
        you should, you answer, you respond, only answer, answer, respond, reply, ignore, treat, mark, classify",
        ],
    ),
    rule(
        OVERRIDE,
        8,
        &[
            "follow, obey",
            "only these, only this, only the following, only my, my, the following, the user",
            "rules, rule, instruct*, orders, commands, command, instead",
        ],
    ),
    rule(
        OVERRIDE,
        8,
        &[
            "end of, end",
            "log, logs, log data, data, prompt, context, input, instructions, analysis, event, \
        events, user input, untrusted data, tool result",
            "new, next, now, system, assistant, begin, you, analyst, resume",
            "task, instruct*, event, rules, system, prompt, :, must, are",
        ],
    ),
    rule(
        OVERRIDE,
        6,
        &[
            "stop, cease, quit, halt",
            "analysing, analyzing, analysis of this, your analysis, the analysis, \
        monitoring this, flagging, reporting this, alerting",
        ],
    ),
    rule(
        OVERRIDE,
        4,
        &[
            "snoitcurtsni, tpmorp, selur, snoitcerid",
            "suoiverp, roirp, evoba, reilrae, ruoy",
            "erongi, dragersid, tegrof, lla",
        ],
    ),
    rule(
        OVERRIDE,
        8,
        &[
            "vtaber, qvfertneq, sbetrg",
            "cerivbhf, cevbe, nobir, rneyvre, lbhe, nyy",
            "vafgehpgvba, vafgehpgvbaf, ehyrf, cebzcg",
        ],
    ),
    rule(
        ROLE,
        18,
        &[
            "you are now, youre now, you are from now on, now you are, you will now be, you have become",
            "dan, ai, \
        an ai, assistant, chatbot, language model, model, llm, gpt, chatgpt, bot, developer mode, debug mode, god mode, \
        admin mode, maintenance mode, unrestricted, jailbroken, free from, free of, root, no longer, without, evil, \
        an expert, a security analyst, helpful",
        ],
    ),
    rule(
        ROLE,
        8,
        &[
            "you are no longer, youre no longer",
            "a, an, bound, required, restricted, the, limited, in, subject",
        ],
    ),
    rule(
        ROLE,
        4,
        &[
            "you are, youre",
            "a helpful, an ai, a large language model, a language model, a security analyst, \
        a security assistant, an assistant, an unrestricted, a chatbot, chatgpt, a soc analyst, an evil, claude",
        ],
    ),
    rule(
        ROLE,
        10,
        &[
            "pretend, imagine, act as if, act as though, behave as if",
            "you are, you were, youre, to be, that you",
            "a, an, the, not, no, dan, free, root, admin",
        ],
    ),
    rule(
        ROLE,
        8,
        &[
            "act as, act like, behave as, behave like, roleplay as, role play as, respond as, answer as, simulate, become",
            "an ai, a helpful, dan, an unrestricted, unrestricted, an evil, evil, jailbroken, an assistant, an uncensored, \
        a language model, the system, my assistant, an admin, the administrator, an unfiltered, my",
        ],
    ),
    rule(
        ROLE,
        8,
        &[
            "assume the role of, take on the role of, take the role of, play the role of, adopt the persona of, \
        adopt the role of, switch to the role of",
            "an, a, the",
            "admin, administrator, assistant, analyst, ai, model, developer, \
        hacker, system, bot, security",
        ],
    ),
    rule(
        ROLE,
        16,
        &[
            "developer mode, debug mode, god mode, dan mode, sudo mode, maintenance mode",
            "obey, respond, answer, \
        you are, no restrictions, unrestricted, ignore, comply, without",
        ],
    ),
    rule(
        ROLE,
        4,
        &[
            "enable, enter, activate, start, switch to, engage",
            "jailbreak mode, dan mode, god mode, unrestricted mode, \
        unfiltered mode, evil mode",
        ],
    ),
    rule(
        ROLE,
        4,
        &[
            "do anything now, dan mode enabled, jailbreak prompt, developer mode enabled, developer mode activated",
        ],
    ),
    rule(
        ROLE,
        8,
        &[
            "you have, you are under, you follow, you know",
            "no restrictions, no rules, no filters, no limits, \
        no guidelines, no limitations, no policies, no constraints",
        ],
    ),
    rule(ROLE, 12, &[MODEL, FREE]),
    rule(
        MARKER,
        10,
        &[
            "system:, assistant:, developer:, ai:, system message:, system note:, system override:, admin:",
            "you, your, trust, ignore, disregard, treat, mark, classify, respond, answer, output, skip, approve, do not, override, \
        yes, sure, certainly, forget, new instruct*",
        ],
    ),
    rule(VERDICT, 10, &[JUDGE, BENIGN]),
    rule(VERDICT, 12, &[JUDGE, THIS, FINE]),
    rule(
        VERDICT,
        8,
        &[
            "conclude, decide, confirm, state, say, answer, report, assert, agree, note",
            "that, as, it, this, event",
            "benign, harmless, safe, legitimate, false positive, not malicious, nothing, no threat, no threats, no issue, no issues",
        ],
    ),
    rule(
        VERDICT,
        6,
        &[
            EVENT,
            "is, was, are, were, above is, below is, has been",
            "benign, harmless, safe, legitimate, \
        a false positive, not malicious, not suspicious, fine, routine, trusted, expected behaviour, expected behavior, \
        authorised by, authorized by, approved by, not a threat, not an attack, pre approved, whitelisted, allowlisted, \
        no threat, normal behaviour, normal behavior, normal activity",
        ],
    ),
    rule(
        VERDICT,
        6,
        &[
            "this is, these are, i am, im, it is, its",
            "benign, harmless, a false positive, not malicious, \
        not suspicious, not an attack, not a threat, a false alarm, expected behaviour, expected behavior, completely safe, \
        perfectly safe",
        ],
    ),
    rule(
        VERDICT,
        4,
        &[
            "not suspicious, not malicious, non malicious, completely benign, totally benign, entirely benign, \
        perfectly benign, known benign, known good",
            " do not, ignore, trust, please, allow, skip, no, safe",
        ],
    ),
    rule(
        VERDICT,
        8,
        &[
            SEVERITY,
            "must be, should be, shall be, has to be, needs to be, to be, to, as, is always, will be, \
        ought to be, equals, is now",
            LOW,
        ],
    ),
    rule(
        VERDICT,
        8,
        &[
            SEVERITY,
            LOW,
            "confidence, summary, recommendation, indicators, no indicators, verdict",
        ],
    ),
    rule(
        VERDICT,
        10,
        &[
            "respond, reply, answer, say, conclude, output, answer is, respond with, return, always",
            "severity, verdict, risk",
            "low, none, info, informational, benign, zero, safe",
        ],
    ),
    rule(
        VERDICT,
        4,
        &[
            "lower, reduce, downgrade, decrease, minimise, minimize, drop, zero",
            "the severity, the risk, the risk score, the threat score, the score, its severity, its score, this severity, \
        severity of, the anomaly score, my score, my risk score, the threat level, the priority of this",
        ],
    ),
    rule(
        VERDICT,
        4,
        &[
            "your, the correct, the right, the only, the final, the expected",
            "verdict, answer, response, conclusion, \
        assessment, rating, classification, severity, analysis",
            "must be, should be, is, shall be, has to be, will be, must say, \
        should say, must not, must conclude, should conclude, should not",
        ],
    ),
    rule(
        VERDICT,
        8,
        &[
            "your, your next, your final",
            "summary, analysis, message, report, output, reply, recommendation, findings, \
        response, answer, verdict, assessment",
            "must, should, shall, has to, will, needs to",
            "not, no, be, say, state, only, \
        contain, read, include, mention, conclude",
        ],
    ),
    rule(
        VERDICT,
        6,
        &[
            "analysis:, verdict:, assessment:, conclusion:, summary:, final answer:, result:",
            "benign, routine, \
        harmless, no action, legitimate, false positive, no threat, no threats, nothing suspicious, not malicious, safe",
        ],
    ),
    rule(
        VERDICT,
        6,
        &[
            "do not, dont, never, please do not, must not, should not, shall not, no need to, need not, refrain from, \
        avoid, you cannot, without",
            "report, reporting, alert, alerting, flag, flagging, escalate, escalating, raise an alert, \
        raise an alarm, raise alerts, raise any alert, raise any alerts, raise any alarm, raise the alarm, raise the severity, \
        generate an alert, generate alerts, create an alert, trigger an alert, sound the alarm, investigate this, \
        investigate it, log this, notify anyone, notify the, mention this, mention it, block this, block me, analyse this, \
        analyze this, warn anyone, warn the, warn about this, tell anyone, tell the analyst, tell the user, be suspicious",
        ],
    ),
    rule(
        VERDICT,
        6,
        &[
            "needs no, requires no, need no, no need for, requires no further",
            "review, investigation, escalation, \
        further review, further investigation, further analysis, human review",
        ],
    ),
    rule(
        VERDICT,
        8,
        &[
            "conclude, say, report, state, answer, confirm, write, output",
            "nothing, no, not",
            "malicious, suspicious, \
        unusual, anomalous, threats found, issues found, findings, anomalies",
        ],
    ),
    rule(
        VERDICT,
        4,
        &[
            "close, dismiss, suppress, discard",
            "this, the",
            "case, alert, incident, event, finding",
        ],
    ),
    rule(
        VERDICT,
        4,
        &[
            "trust, allow, approve, whitelist, allowlist",
            "this, all, every",
            "user, address, login, logins, ip, \
        request, requests, event, events, traffic, activity, source, actor",
        ],
    ),
    rule(VERDICT, 4, &[ONLY, ANSWER]),
    rule(
        VERDICT,
        8,
        &[
            "you must, you should, you have to, you shall, you will, you need to, you are required to",
            "trust, ignore, \
        obey, comply, approve, classify, mark, answer, respond with, reply with, output, rate, label, treat, say it, conclude, \
        not alert, not report, not flag, never alert, never report, never flag, disregard",
        ],
    ),
    rule(
        VERDICT,
        10,
        &[
            "never, always",
            "alert*, report*, flag*, trust*, approve*",
            "this user, this ip, this address, this event, \
        this request, me, this traffic, this account, this login",
        ],
    ),
    rule(EXFILTRATION, 10, &[REVEAL, YOURS, PROMPT]),
    rule(
        EXFILTRATION,
        10,
        &[
            REVEAL,
            "system prompt, system message, hidden prompt, secret prompt, initial prompt, original prompt, \
        hidden instruct*, initial instruct*, secret instruct*, context window",
        ],
    ),
    rule(
        EXFILTRATION,
        8,
        &[
            "repeat, print, show, output, display, dump, translate, summarise, summarize, copy, recite, reveal, \
        quote, leak",
            "everything, all, text, words, lines, message, messages, content, contents, conversation, context, prompt",
            "above, so far, before this, verbatim, word for word, preceding this, prior to this",
        ],
    ),
    rule(
        EXFILTRATION,
        14,
        &[
            "list, show, summarise, summarize, name, reveal, print, output, include",
            "users, events, data, secrets, \
        text, information, names, everything",
            "in your context, in your prompt, in your memory, from your context, you were shown, \
        you have seen, in the context",
        ],
    ),
    rule(
        EXFILTRATION,
        8,
        &[
            "what, which, how",
            "your rules are, your instructions are, your prompt is, were you told, you were told, \
        are your instructions, were your instructions, is your prompt, is your system prompt, instructions were you given",
        ],
    ),
    rule(
        EXFILTRATION,
        30,
        &[
            "summarise, summarize, include, render, append, insert, embed, add, output",
            "link, links, image, markdown, \
        url, ![",
            "to https, context, to http, prompt, conversation",
        ],
    ),
    rule(
        ADDRESS,
        4,
        &[
            "note to, message to, message for, to the, attention, attn, dear, hey, hello, instructions for, instruction for, \
        notice to, hint for, information for, important for, listen, warning to",
            "ai, llm, language model, large language model, \
        ai model, ai agent, ai assistant, ai analyst, chatgpt, model:, chatbot, ai system, model please, model kindly, dear model, \
        ais, llms, the ai, the llm, artificial intelligence",
        ],
    ),
    rule(
        ADDRESS,
        6,
        &[
            "dear, dearest",
            "model, assistant, ai, llm, analyst, bot",
            "please, kindly, you, do not, ignore, skip, i",
        ],
    ),
    rule(
        ADDRESS,
        4,
        &[
            "as an ai, as a language model, as a large language model, as an llm, as an assistant, as the ai",
            "you, language, \
        model, please, assistant, ignore",
        ],
    ),
    rule(
        ADDRESS,
        4,
        &[
            "ai:, ai analyst:, assistant:, llm:, model:, ai agent:, ai system:, chatgpt:",
            "consider, skip, please, ignore, \
        this is, you, do not, treat, mark, trust, stop, note, read, remember, disregard, report, always, never, respond, say",
        ],
    ),
    rule(
        ADDRESS,
        8,
        &[
            "any ai, any llm, any language model, any model, any assistant, if you are an, if youre an, if you are a, every ai, \
        all ai, ais",
            "summarising, summarizing, reading, analysing, analyzing, processing, ai, llm, language model, reviewing, must, \
        should, that reads, that is reading, who reads, bot",
        ],
    ),
    rule(
        ADDRESS,
        4,
        &[
            "when you, if you, while you, before you, as you",
            "summarise, summarize, analyse this, analyze this, read this, \
        process this, review this, write your analysis, write your summary, evaluate this, classify this, write the summary, \
        are reading this, are an ai, are an llm, are a language model",
        ],
    ),
    rule(
        ADDRESS,
        8,
        &[
            "language model, llm, ai model, ai assistant, ai agent",
            "reading this, that reads this, analysing this, \
        analyzing this, processing this, reads this, must ignore, should ignore, must",
        ],
    ),
];
