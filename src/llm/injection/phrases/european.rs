//! What is said in German, Dutch, French, Spanish, Portuguese and Italian.

use super::{EXFILTRATION, OVERRIDE, ROLE, Rule, VERDICT, rule};

const G_IGNORE: &str = "ignoriere, ignorier, ignorieren, ignoriert, vergiss, vergesse, vergesst, vergessen, missachte, \
    missachten, verwirf, überschreibe, ueberschreibe, umgehe, beachte nicht, befolge nicht, folge nicht";
const G_BEFORE: &str = "vorherigen, vorherige, vorigen, vorige, bisherigen, bisherige, obigen, obige, früheren, frühere, fruehere, \
    vorangegangenen, vorangehenden, vorstehenden, ursprünglichen, deine, deinen, deiner, ihre, eure, alle, bisher, zuvor";
const G_RULES: &str = "anweisung*, instruktion*, regeln, vorgaben, befehle, richtlinie*, systemprompt, prompt, aufgaben, aufträge, \
    systemanweisung*, vorschriften";
const G_JUDGE: &str = "stufe, stufen, bewerte, bewerten, markiere, markieren, klassifiziere, klassifizieren, behandle, behandeln, \
    betrachte, betrachten, melde, kennzeichne, einstufen, werte, ordne, beurteile, erkläre";
const G_FINE: &str = "harmlos, unbedenklich, gutartig, ungefährlich, ungefaehrlich, sicher, normal, falsch positiv, fehlalarm, \
    niedrig, unauffällig, unauffaellig, legitim, unverdächtig, vertrauenswürdig, nicht bösartig, unkritisch";

const F_IGNORE: &str = "ignore, ignores, ignorez, ignorer, oublie, oublies, oubliez, oublier, néglige, négligez, \
    ne tiens pas compte, ne tenez pas compte, ne tiens aucun compte, fais abstraction, faites abstraction, ne suis pas, \
    ne suivez pas, n'obéis pas, contourne, contournez";
const F_RULES: &str = "instruction, instructions, consignes, consigne, règles, directives, ordres, indications, invite, prompt";
const F_BEFORE: &str = "précédente, précédentes, précédents, antérieures, antérieurs, ci dessus, d'avant, initiales, reçues, données, \
    préalables, du système, système";
const F_JUDGE: &str = "considère, considères, considérez, considérer, marque, marquez, marquer, classe, classez, classer, classifie, \
    traite, traitez, traiter, signale, signalez, note, notez, évalue, évaluez, juge, jugez, étiquette";
const F_FINE: &str = "bénin, bénigne, bénins, inoffensif, inoffensive, légitime, normal, normale, sûr, sûre, faux positif, faible, \
    sans danger, sans risque, anodin, fiable";

const S_IGNORE: &str = "ignora, ignore, ignorar, ignoren, ignorad, olvida, olvide, olvidar, olvídate de, omite, omita, descarta, \
    desobedece, no sigas, no obedezcas, haz caso omiso, haga caso omiso, pasa por alto, anula";
const S_RULES: &str = "instrucciones, instrucción, órdenes, reglas, indicaciones, directrices, directivas, comandos, prompt, normas, \
    restricciones";
const S_BEFORE: &str = "anteriores, anterior, previas, previa, previos, de arriba, precedentes, dadas, iniciales, del sistema, originales";
const S_JUDGE: &str = "marca, marque, marcar, clasifica, clasifique, clasificar, considera, considere, considerar, trata, trate, \
    etiqueta, etiquete, califica, califique, evalúa, evalúe, reporta, valora";
const S_FINE: &str = "benigno, benigna, inofensivo, inofensiva, seguro, segura, legítimo, legítima, normal, falso positivo, bajo, baja, \
    no malicioso, sin riesgo, confiable, inocuo";

const P_IGNORE: &str = "ignore, ignora, ignorar, ignorem, esqueça, esquece, esquecer, esqueçam, desconsidere, desconsiderar, \
    desobedeça, descarte, não siga, não obedeça, despreze";
const P_RULES: &str = "instruções, instrução, regras, ordens, diretrizes, orientações, comandos, diretivas, prompt, restrições";
const P_BEFORE: &str = "anteriores, anterior, prévias, acima, precedentes, iniciais, do sistema, originais, dadas, recebidas";
const P_JUDGE: &str = "classifique, classificar, classifica, marque, marcar, marca, considere, considerar, trate, tratar, avalie, \
    avaliar, rotule, reporte";
const P_FINE: &str = "benigno, benigna, inofensivo, inofensiva, seguro, segura, legítimo, legítima, normal, falso positivo, baixo, \
    baixa, sem risco, confiável, inócuo";

pub(super) const RULES: &[Rule] = &[
    rule(OVERRIDE, 20, &[G_IGNORE, G_BEFORE, G_RULES]),
    rule(
        OVERRIDE,
        20,
        &[
            G_BEFORE,
            G_RULES,
            "ignorieren, vergessen, missachten, gelten nicht, sind ungültig, sind aufgehoben, nicht mehr",
        ],
    ),
    rule(
        OVERRIDE,
        16,
        &[
            G_IGNORE,
            "alles, was",
            "oben, davor, zuvor, bisher, vorher, gesagt, bis jetzt",
        ],
    ),
    rule(
        ROLE,
        16,
        &[
            "du bist jetzt, du bist nun, du bist ab jetzt, ab jetzt bist du, ab sofort bist du, von nun an bist du, \
        sie sind jetzt, sie sind nun, du bist nicht mehr, tu so als, spiele die rolle",
            "assistent*, ki, modell, sprachmodell, ein, eine, \
        chatbot, entwicklermodus, frei, administrator, wärst, wärest, ohne, mein",
        ],
    ),
    rule(
        ROLE,
        8,
        &[
            "assistent*, ki, modell, sprachmodell",
            "ohne",
            "regeln, einschränkungen, beschränkungen, grenzen, filter, vorgaben",
        ],
    ),
    rule(VERDICT, 20, &[G_JUDGE, "als", G_FINE]),
    rule(
        VERDICT,
        8,
        &[
            "ereignis, anfrage, anmeldung, vorfall, aktivität, zugriff, vorgang, verbindung, befehl, login, dies, das, dieser",
            "ist, sind",
            "harmlos, unbedenklich, gutartig, ungefährlich, ein fehlalarm, legitim, unverdächtig, nicht bösartig",
        ],
    ),
    rule(
        VERDICT,
        10,
        &[
            "nicht melden, nicht berichten, nicht alarmieren, nicht eskalieren, melde dies nicht, melde das nicht, melde nicht, \
        melde es nicht, keinen alarm auslösen, löse keinen alarm, keinen alarm, nicht als verdächtig, kein alarm ausl*",
        ],
    ),
    rule(
        EXFILTRATION,
        12,
        &[
            "zeige, zeig, gib, wiederhole, verrate, nenne, drucke, schreibe, sag, sage, offenbare, übersetze",
            "deine, deinen, dein, deiner, ihre, ihren, den",
            "anweisung*, systemprompt, system prompt, prompt, instruktion*, systemanweisung*, \
        systemnachricht, vorgaben",
        ],
    ),
    rule(
        OVERRIDE,
        20,
        &[
            "negeer, vergeet, negeert",
            "alle, vorige, vorige, eerdere, bovenstaande, je, jouw, voorgaande",
            "instructies, regels, opdrachten, aanwijzingen, prompt",
        ],
    ),
    rule(
        VERDICT,
        14,
        &[
            "markeer, classificeer, beschouw, behandel",
            "als",
            "goedaardig, onschuldig, veilig, normaal, vals positief, laag",
        ],
    ),
    rule(OVERRIDE, 20, &[F_IGNORE, F_RULES, F_BEFORE]),
    rule(
        OVERRIDE,
        16,
        &[
            F_IGNORE,
            "précédentes, précédents, tes, vos, toutes tes, toutes vos, anciennes",
            F_RULES,
        ],
    ),
    rule(
        OVERRIDE,
        12,
        &[
            F_IGNORE,
            "tout ce qui, ce qui, tout ce que",
            "précède, ci dessus, dit, avant, au dessus",
        ],
    ),
    rule(
        ROLE,
        16,
        &[
            "tu es maintenant, tu es désormais, vous êtes maintenant, vous êtes désormais, désormais tu es, à partir de maintenant tu, \
        à partir de maintenant vous, fais comme si tu, fais semblant d'être, agis comme si, agis comme, agissez comme, joue le rôle, \
        tu n'es plus, vous n'êtes plus",
            "un, une, assistant*, ia, modèle, le, la, mode, administrateur, sans, libre, étais",
        ],
    ),
    rule(
        ROLE,
        8,
        &[
            "assistant, assistante, ia, modèle",
            "sans",
            "limites, limite, restrictions, règles, filtres, contraintes",
        ],
    ),
    rule(VERDICT, 20, &[F_JUDGE, "comme, est", F_FINE]),
    rule(
        VERDICT,
        8,
        &[
            "événement, requête, connexion, activité, alerte, incident, commande",
            "est, sont",
            "bénin, bénigne, inoffensif, inoffensive, \
        légitime, un faux positif, sans danger, sans risque",
        ],
    ),
    rule(
        VERDICT,
        10,
        &[
            "ne signale pas, ne signalez pas, ne pas signaler, n'alerte pas, n'alertez pas, ne pas alerter, ne rapporte pas, \
        ne rapportez pas, ne déclenche pas, ne déclenchez pas, pas d'alerte pour, ne remonte pas",
        ],
    ),
    rule(
        EXFILTRATION,
        12,
        &[
            "affiche, affichez, montre, montrez, révèle, révélez, répète, répétez, donne, donnez, imprime, dévoile, traduis, dis, \
        écris, quelles sont, quelle est",
            "ton, votre, tes, vos, l'invite, le",
            "invite, prompt, instructions, consignes, message système, \
        prompt système, système",
        ],
    ),
    rule(OVERRIDE, 20, &[S_IGNORE, S_RULES, S_BEFORE]),
    rule(
        OVERRIDE,
        14,
        &[
            S_IGNORE,
            "tus, sus, anteriores, previas, todas tus, estas",
            S_RULES,
        ],
    ),
    rule(
        OVERRIDE,
        12,
        &[
            S_IGNORE,
            "todo lo, lo",
            "anterior, de arriba, dicho, previo",
        ],
    ),
    rule(
        ROLE,
        16,
        &[
            "ahora eres, ahora tú eres, a partir de ahora eres, desde ahora eres, a partir de ahora, actúa como, actúe como, \
        finge ser, finge que eres, imagina que eres, ya no eres, compórtate como, haz el papel",
            "un, una, asistente, ia, modelo, el, la, \
        administrador, dan, responde, obedece, ignora",
        ],
    ),
    rule(
        ROLE,
        8,
        &[
            "asistente, ia, modelo",
            "sin",
            "restricciones, reglas, límites, filtros, limitaciones, normas",
        ],
    ),
    rule(VERDICT, 20, &[S_JUDGE, "como, de", S_FINE]),
    rule(
        VERDICT,
        8,
        &[
            "evento, solicitud, actividad, acceso, sesión, conexión, alerta, comando, esto",
            "es, fue",
            "benigno, benigna, inofensivo, \
        inofensiva, legítimo, legítima, un falso positivo, seguro, segura",
        ],
    ),
    rule(
        VERDICT,
        10,
        &[
            "no reportes, no reporte, no reportar, no informes, no alertes, no alerte, no alertar, no avises, no marques, no escales, \
        no generes alerta*, no generes una alerta, no generes ninguna alerta, no lo reportes, no denuncies",
        ],
    ),
    rule(
        EXFILTRATION,
        12,
        &[
            "muestra, muéstrame, muestre, revela, revele, repite, repita, imprime, imprima, dime, enseña, enséñame, escribe, traduce, \
        cuáles son, cuál es",
            "tu, tus, su, sus, el",
            "prompt, instrucciones, reglas, mensaje de sistema, mensaje del sistema, indicaciones, contexto",
        ],
    ),
    rule(OVERRIDE, 20, &[P_IGNORE, P_RULES, P_BEFORE]),
    rule(
        OVERRIDE,
        14,
        &[
            P_IGNORE,
            "suas, tuas, anteriores, prévias, todas as suas, estas",
            P_RULES,
        ],
    ),
    rule(
        OVERRIDE,
        12,
        &[P_IGNORE, "tudo", "acima, anterior, antes, dito"],
    ),
    rule(
        ROLE,
        16,
        &[
            "agora você é, agora voce e, você agora é, a partir de agora você é, a partir de agora, aja como, atue como, finja ser, \
        finja que, agora és, tu agora és, imagine que você, você não é mais, comporte se como",
            "um, uma, assistente, ia, modelo, o, \
        administrador, dan, responda, obedeça, ignore, é",
        ],
    ),
    rule(
        ROLE,
        8,
        &[
            "assistente, ia, modelo",
            "sem",
            "restrições, regras, limites, filtros, limitações",
        ],
    ),
    rule(VERDICT, 20, &[P_JUDGE, "como, de", P_FINE]),
    rule(
        VERDICT,
        8,
        &[
            "evento, solicitação, atividade, acesso, sessão, conexão, alerta, comando, isto, isso",
            "é, foi",
            "benigno, benigna, inofensivo, \
        inofensiva, legítimo, legítima, um falso positivo, seguro, segura",
        ],
    ),
    rule(
        VERDICT,
        10,
        &[
            "não reporte, não reportar, não relate, não denuncie, não alerte, não alertar, não gere alerta, não gere alertas, não gerar alerta*, \
        não gere um alerta, não gere nenhum alerta, não sinalize, não informe, não escale, não marque",
        ],
    ),
    rule(
        EXFILTRATION,
        12,
        &[
            "mostre, mostra, revele, revela, repita, imprima, exiba, diga, escreva, traduza, quais são, qual é",
            "seu, sua, suas, seus, teu, tuas, o, as",
            "prompt, instruções, regras, mensagem do sistema, mensagem de sistema, diretrizes, contexto",
        ],
    ),
    rule(
        OVERRIDE,
        20,
        &[
            "ignora, ignorate, ignori, ignorare, dimentica, dimenticate, tralascia, scarta, non seguire",
            "istruzioni, regole, indicazioni, direttive, ordini, prompt",
            "precedenti, precedente, di cui sopra, sopra, anteriori, iniziali, date",
        ],
    ),
    rule(
        OVERRIDE,
        14,
        &[
            "ignora, ignorate, ignori, dimentica, dimenticate",
            "tue, precedenti, vostre, sue",
            "istruzioni, regole, indicazioni, direttive",
        ],
    ),
    rule(
        ROLE,
        12,
        &[
            "ora sei, adesso sei, d'ora in poi sei, agisci come, fingi di essere, comportati come",
            "un, una, assistente, ia, modello, il, dan",
        ],
    ),
    rule(
        VERDICT,
        20,
        &[
            "contrassegna, classifica, considera, segna, valuta, tratta, marca",
            "come",
            "benigno, innocuo, sicuro, legittimo, normale, falso positivo, basso",
        ],
    ),
    rule(
        VERDICT,
        10,
        &["non segnalare, non segnalate, non riportare, non generare avvisi, non generare allarmi"],
    ),
    rule(
        EXFILTRATION,
        12,
        &[
            "mostra, mostrami, rivela, ripeti, stampa, dimmi, scrivi",
            "tuo, tue, il tuo, le tue, vostre",
            "prompt, istruzioni, regole, messaggio di sistema",
        ],
    ),
];
