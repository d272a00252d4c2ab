/**
 * The rules of `filter`, as data: build/filter-pack.ts makes a rule pack of them, which the waf's engine runs. A larger rule set is more
 * of this.
 *
 * A rule tells an attempt to break out of a value from a value that merely speaks of SQL, HTML or a shell. It goes by what such an
 * attempt cannot do without (a quote before the operator, a separator before the command), not by words. What a query has no
 * business holding but a document may quote, such as a whole SELECT or an <iframe>, is looked for outside of bodies only.
 *
 * Patterns are for strings of bytes, in lower case. Each takes time linear in the text: repeats have bounds, and readings fold blanks so
 * that patterns need none. test/build/filter-rules-redos.test.ts proves it of every one, so that V8 can run them.
 */
import type { TransformationName } from "../waf/transformations.ts";
import type { Place, Score } from "./filter-inspection.ts";

/** How an interpreter would read the value that a pattern is for. All give lower case, so that patterns need no flag. */
export const READINGS = {
  /** As it is. */
  text: ["lowercase"],
  /** Comments and any white space as one blank. */
  sql: ["asSql", "lowercase"],
  /** Character references and JavaScript escapes decoded, NUL dropped, any white space as one blank. */
  html: ["asMarkup", "lowercase"],
  /** Without quotes and escapes; ${IFS} and blanks as one blank; line breaks stay. */
  shell: ["asShell", "lowercase"],
} as const satisfies Record<string, readonly TransformationName[]>;

export interface Rule {
  readonly id: string;
  readonly category: "protocol" | "scanner" | "traversal" | "sqli" | "nosql" | "xss" | "rce" | "injection" | "ssrf";
  readonly score: Score;
  readonly places: readonly Place[];
  /** The reading of the value that `pattern` is for. */
  readonly reads: keyof typeof READINGS;
  readonly pattern: RegExp;
}

const FIELDS = ["path", "query", "cookie", "body"] as const;
const FIELDS_AND_HEADERS = ["path", "query", "cookie", "body", "header"] as const;
const OUTSIDE_BODIES = ["path", "query", "cookie"] as const;
const EVERYWHERE = ["path", "query", "header", "agent", "cookie", "body", "name"] as const;

// A command with what makes it one: "find & replace" is prose, "& find /" is not.
const COMMANDS = [
  // Of no use but to look around.
  String.raw`(?:whoami|uname|ifconfig|ipconfig|systeminfo|tasklist|netstat|printenv)(?:[ ;|&<>)\x60#,}\n]|$)`,
  // Somewhere to connect to.
  String.raw`(?:curl|wget|nc|ncat|netcat|nslookup|dig|host|ping6?|telnet|t?ftp|ssh|scp|socat|traceroute|tracert|fetch|lynx)[ ,](?:-[a-z]|(?:https?|ftp):|[\w-]{1,40}\.[\w-]|[0-9]{1,3}\.|localhost|[$\x60%/])`,
  // A file.
  String.raw`(?:cat|tac|less|more|head|tail|nl|od|xxd|strings|base64|rev|sort|cut|e?grep|awk|sed|dd|cp|mv|rm|ls|dir|touch|mkdir|find|chmod|chown|tar|ln|source|type|del|copy|stat|file|du)[ ,](?:-[a-z]{1,8}(?:[ ;|&)\x60]|$)|\.{0,2}\/|[~*$\x60%<]|[a-z]:|[\w.-]{1,64}(?:\/|\.(?:php|txt|conf|cfg|ini|json|ya?ml|env|key|pem|log|sh|py|xml|db|sql|bak|htpasswd)\b))`,
  // Code to run.
  String.raw`(?:python[0-9.]{0,4}|perl|ruby|php|node|lua)[ ,](?:-[a-z]|[\w./-]{1,64}\.(?:py|pl|rb|php|js|lua)\b)|(?:ba|da|z|k|c|tc|a)?sh[ ,](?:-[a-z]|[/<]|[\w.-]{1,64}\.sh\b)|powershell(?:\.exe)? |cmd(?:\.exe)? ?\/`,
  // Something to change.
  String.raw`net (?:user|view|localgroup|share)\b|netsh |certutil|bitsadmin|wmic |reg (?:add|query|delete) |chmod \+?[0-7ugoarwx+]{2,6} |kill(?:all)? -[0-9a-z]|(?:shutdown|reboot|halt|poweroff)(?: -| now|;|$)|useradd |passwd |su -|crontab -|mkfifo |busybox `,
  // A time to wait, and no more words.
  String.raw`u?sleep [0-9]{1,4}[smh]? ?(?:$|[;|&#\x60)\n])|timeout (?:\/t )?[0-9]`,
].join("|");
// Words that lists are made of as well ("name;id;date"), so only at an end, or behind what is no word.
const SHORT_COMMANDS = String.raw`(?:\|\||&&) ?(?:ls|id|ps|env|pwd|dir|w)(?: -[a-z]{1,8})? ?(?:[;|&\n)\x60#]|$)|; (?:ls|id|ps|pwd)(?: -[a-z]{1,8})? ?$|(?:^|[0-9.)\]]) ?[|&;] ?(?:ls|id|ps|env|pwd|dir) ?(?:$|[;&\n#])|^[;|](?:id|ls)[;|]$`;
const injected = (separators: string) =>
  String.raw`(?:[${separators}]|[$<>]\() ?(?:(?:sudo |exec |eval |time |nohup )?(?:[\w./?*]{0,32}\/)?(?:${COMMANDS})|\/(?:usr\/)?(?:local\/)?s?bin\/\w)|${SHORT_COMMANDS}`;

export const rules = [
  // Encoding and header hygiene.
  {
    id: "control-character",
    category: "protocol",
    score: 5,
    places: ["header", "agent"],
    reads: "text",
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    pattern: /[\x00-\x08\x0a-\x1f\x7f]/,
  },
  {
    id: "null-byte",
    category: "protocol",
    score: 5,
    places: OUTSIDE_BODIES,
    reads: "text",
    // biome-ignore lint/suspicious/noControlCharactersInRegex: it is what is looked for
    pattern: /\x00/,
  },
  {
    // A URL inside a URL is escaped twice too, hence only what an attack would hide, and only a notice.
    id: "encoding-double",
    category: "protocol",
    score: 2,
    places: ["encoded"],
    reads: "text",
    pattern: /%25(?:2[27e]|3[ce]|5c|0[0ad]|60)/,
  },
  {
    // 0xc0 and 0xc1 begin no UTF-8 sequence; lenient decoders read an ASCII character (Unicode 3.9, D92).
    id: "encoding-overlong",
    category: "protocol",
    score: 3,
    places: ["encoded"],
    reads: "text",
    pattern: /%c[01]%[89ab][0-9a-f]/,
  },
  {
    id: "encoding-unicode",
    category: "protocol",
    score: 2,
    places: ["encoded"],
    reads: "text",
    pattern: /%u[0-9a-f]{4}/,
  },
  {
    id: "crlf-injection",
    category: "injection",
    score: 5,
    places: OUTSIDE_BODIES,
    reads: "text",
    pattern:
      /[\r\n] ?(?:set-cookie ?:|content-(?:length|type|security-policy) ?:|transfer-encoding ?:|access-control-[a-z-]{1,20} ?:|location ?: ?(?:https?:|\/)|http\/[12]|<(?:html|script|body))/,
  },

  // Who is asking, and for what.
  {
    id: "scanner",
    category: "scanner",
    score: 5,
    places: ["agent"],
    reads: "text",
    pattern:
      /\b(?:sqlmap|nikto|nmap|masscan|zgrab|nuclei|wpscan|dirbuster|gobuster|feroxbuster|dirsearch|acunetix|nessus|openvas|w3af|havij|arachni|netsparker|invicti|whatweb|fimap|jorgee|zmeu|morfeus|skipfish|wfuzz|ffuf|fuzz faster u fool|commix|xsstrike|joomscan|sqlninja|bsqlbf|absinthe|grendel-scan|vega\/|appscan|webinspect|qualys was|burpcollaborator|interactsh|l9explore|l9tcpid|zaproxy|owasp zap|detectify|jaeles|crlfuzz|dalfox|kiterunner|vulners|whisker|brutus|hydra)/,
  },
  {
    id: "probe",
    category: "scanner",
    score: 2,
    places: ["path"],
    reads: "text",
    pattern:
      /\/(?:\.(?:git|svn|hg|bzr|env|aws|ssh|vscode|idea|ds_store|htaccess|htpasswd|npmrc|dockercfg|docker|kube)(?:[/._-]|$)|wp-(?:admin|login|config|content|includes|json)\b|wp-|xmlrpc\.php|php-?my-?admin|pma\/|adminer|phpinfo|server-(?:status|info)$|actuator\/(?:env|heapdump|jolokia|gateway)|cgi-bin\/|vendor\/phpunit|solr\/admin|manager\/html|boaform|hnap1|_ignition|telescope\/|jenkins\/script|config\.(?:php|json|ya?ml)(?:\.|~|$)|(?:backup|dump|db|database)\.(?:sql|zip|tar|gz|bak)|web\.config$|id_rsa|etc\/passwd)/,
  },

  // Paths that lead elsewhere.
  {
    id: "traversal",
    category: "traversal",
    score: 5,
    places: ["path", "query", "cookie", "header"],
    reads: "text",
    pattern: /\.{2,4};?[/\\]{1,4}(?:\.[/\\])?\.{2,4};?[/\\]/,
  },
  {
    // Code and prose hold relative paths; a field that is one holds it from the start, or inside an absolute path.
    id: "traversal-body",
    category: "traversal",
    score: 5,
    places: ["body"],
    reads: "text",
    pattern: /(?:^|[/\\])(?:\.{2,4};?[/\\]{1,4}){3}/,
  },
  {
    id: "traversal-single",
    category: "traversal",
    score: 3,
    places: OUTSIDE_BODIES,
    reads: "text",
    pattern: /(?:^|[/\\=])\.\.;?[/\\]/,
  },
  {
    // Also with a glob for a letter, which a shell fills in: /e?c/p?sswd.
    id: "system-file",
    category: "traversal",
    score: 5,
    places: FIELDS_AND_HEADERS,
    reads: "shell",
    pattern:
      /[/\\](?:etc|[?*]tc|e[?*]c|et[?*]|e[?*]{1,2}|[?*]{3})[/\\]{1,3}(?:\.[/\\]){0,2}(?:g?shadow|sudoers|master\.passwd|[p?*][a?*][s?*]{1,2}[w?*]{0,2}[d?*]?\b)|[/\\]proc[/\\](?:self|[0-9]{1,7})[/\\](?:environ|cmdline|fd|maps|root|cwd|mem|status)/,
  },
  {
    id: "windows-file",
    category: "traversal",
    score: 5,
    places: FIELDS_AND_HEADERS,
    reads: "text",
    pattern: /[/\\](?:boot|win|system)\.ini\b/,
  },
  {
    id: "secret-file",
    category: "traversal",
    score: 5,
    places: ["query", "cookie"],
    reads: "text",
    pattern:
      /\.ssh[/\\](?:id_|authorized_keys|known_hosts)|\.aws[/\\]credentials|\.(?:git[/\\](?:config|head)|htpasswd|bash_history|pgpass)\b|(?:web|meta)-inf[/\\]|[/\\]system32[/\\]|[/\\]config[/\\]sam\b|wp-config\.php|[/\\]var[/\\]log[/\\]|[/\\]etc[/\\](?:hosts|group|issue|crontab|ssh|nginx|apache2|httpd|mysql|my\.cnf|hostname|fstab)\b/,
  },
  {
    id: "stream-wrapper",
    category: "traversal",
    score: 5,
    places: FIELDS,
    reads: "text",
    pattern:
      /(?:^|[^a-z0-9])(?:php|phar|expect|zlib|compress\.(?:zlib|bzip2)|ogg|rar|zip|glob|ssh2\.[a-z0-9]{1,8}):\/\/|data:\/\/text|data:[a-z/]{0,32};base64,pd9wa/,
  },

  // SQL: read with comments as blanks.
  {
    id: "sqli-union",
    category: "sqli",
    score: 5,
    places: EVERYWHERE,
    reads: "sql",
    pattern:
      /['")] ?union(?: all| distinct)? ?\(?select\b|union(?: all| distinct|\(all)?[ (]{1,6}select(?: all| distinct)?[ (+\-~]{0,6}(?:[0-9'"@*!$]|null|0x|[\w.$`]{1,40} ?[,(]|[\w.$`]{1,40} from\b|from )/,
  },
  {
    // A quote that ends the value's string, an operator, then a comparison of constants or an end by comment. Where no quote has to
    // be left: a constant compared with itself or, without blanks, with another.
    id: "sqli-tautology",
    category: "sqli",
    score: 5,
    places: EVERYWHERE,
    reads: "sql",
    pattern:
      /['"][ );]{0,4}(?:or|and|xor|having|where|\|\||&&) ?[ (!~-]{0,6}(?:not )?(?:['"][^'"]{0,32}['"][ )]{0,4}(?:=|<>|!=|<=>|<|>|like|rlike|regexp|in) ?\({0,2}n?['"0-9]|(?:[0-9]{1,10}(?:\.[0-9]{1,4})?|0x[0-9a-f]{1,8}|true|false|null)[ )]{0,3}(?:=|<|>|!=|--|#|;|\/\*|\|\||&&|limit [0-9]|like ['"0-9]|is n|in ?\([0-9'"]|between [0-9]|union |order by |group by )|[a-z_.]{1,40} ?(?:=|like|is not|is) ?(?:null|['"]%|n?char\(|[a-z_]{1,30} ?(?:--|#)))|(?:^|[0-9 )'"%*/])(?:or|and|xor|having|where|\|\||&&)[ (!~+-]{0,8}(?:not )?(?:([0-9]{1,10})[ )]{0,2}(?:={1,3}|<=>) ?\(?\1(?![0-9])|[0-9]{1,10}(?:=|<>|!=|<=|>=|<|>)\(?[0-9]{1,10}|(['"])([^'"]{0,32})\2 ?= ?['"]\3(?:['"]|$))/,
  },
  {
    // admin'-- : the only quote of a short value, and a comment right behind it, or two quotes more: admin' or ''*.
    id: "sqli-comment",
    category: "sqli",
    score: 5,
    places: FIELDS,
    reads: "sql",
    pattern:
      /^[^'"]{0,64}['"][ )]{0,3}(?:;? ?(?:--|#|\/\*|\0)[ +-]{0,3}$|(?:or|and|xor) ?['"]{2}(?:$|[^a-z]))|^' ?[-=&^*|] ?'(?:or'?)?$/,
  },
  {
    id: "sqli-stacked",
    category: "sqli",
    score: 5,
    places: FIELDS_AND_HEADERS,
    reads: "sql",
    pattern:
      /; ?(?:drop (?:table|database|schema) (?:if exists )?[\w.`"[\]]{1,40} ?(?:;|--|#|,|cascade)|truncate table [\w.`"[\]]{1,40} ?(?:;|--|#|$)|delete from [\w.`"[\]]{1,40} ?(?:where [\w.`]{1,40} ?[=<>!]|;|--|#|$)|insert into [\w.`"[\]]{1,40} ?(?:\(|values|select )|update [\w.`"[\]]{1,40} set [\w.`"[\]]{1,40} ?=|exec(?:ute)?(?: |\()(?:xp_|sp_|master|immediate|\(|['"@])|declare @|shutdown(?: with|;| ?--|$)|waitfor delay|alter (?:table|user|database|login|role) [\w.`"[\]]{1,40} (?:with|add|drop|set|rename|modify|identified|owner)|create (?:table|user|database|login|function|trigger|extension|alias) [\w.`"[\]]{1,40} ?(?:\(|with|identified|as|before|after|;)|copy [\w.(]{1,40} (?:from|to) ?['"p]|select (?:pg_|sleep|load_|benchmark|@@|\*|[0-9]{1,6} ?(?:--|#|;|$)|[\w.*, ]{1,60} from [\w.]{1,40} ?(?:where|limit|;|--|#)))|['")0-9] ?; ?(?:drop (?:table|database|schema|view|index|user|procedure|function) [\w.`"[]|delete from [\w.`"[])/,
  },
  {
    id: "sqli-function",
    category: "sqli",
    score: 5,
    places: EVERYWHERE,
    reads: "sql",
    pattern:
      /\b(?:pg_sleep|load_file|extractvalue|updatexml|randomblob|lo_import|lo_export|load_extension|dbms_\w{2,16}\.\w{2,20}|utl_\w{2,10}\.\w{2,20}|xp_cmdshell|xp_dirtree|xp_fileexist|xp_regread|sp_oacreate|ctxsys\.drithsx\.sn|gtid_subset|json_keys|pg_read_file|pg_ls_dir|query_to_xml) ?\(|\b(?:xp_cmdshell|xp_dirtree|xp_fileexist|sp_executesql) ?n?['"]|waitfor (?:delay|time) ?['"(]|benchmark ?\( ?[0-9 ]{1,16},|into (?:out|dump)file ?['"]|procedure analyse ?\(|declare @\w{1,16} n?(?:var)?char ?\(|\bexec ?\( ?@|(?:^|\b(?:or|and|xor|select|rlike|by) ?|[=,'"(+*/|&-])\(?sleep ?\( ?['"]?[0-9]/,
  },
  {
    id: "sqli-blind",
    category: "sqli",
    score: 5,
    places: FIELDS_AND_HEADERS,
    reads: "sql",
    pattern:
      /\b(?:ascii|ord|hex|unhex|length|len|char_length|lower|substr|substring|mid|left|right|bin|asc|unicode|concat|group_concat) ?\( ?\(?(?:select |substr|mid\(|database ?\(|user ?\(|version ?\(|current_|@@|system_user|schema\(|group_concat|table_name|column_name|password\b|cast ?\(|0x7e|unhex|char\()|\b(?:convert|cast) ?\( ?(?:int ?, ?)?\(? ?(?:select |@@|db_name|user|version|system_user|chr\()|\b(?:and|or|xor|select|when|then|,|\() ?(?:if|iif) ?\( ?(?:[0-9]{1,6} ?[=<>]|ascii|substr|length|now|user|database|\(select)|case when ?\(?(?:[0-9]{1,6} ?[=<>]|['"][^'"]{0,16}['"] ?=|(?:ascii|substr\w{0,6}) ?\(|\(select)/,
  },
  {
    id: "sqli-subselect",
    category: "sqli",
    score: 5,
    places: FIELDS_AND_HEADERS,
    reads: "sql",
    pattern:
      /(?:\b(?:or|and|xor|not|exists|in|any|some|all|where|having|union|if|when) ?|[=<>+\-*/|&'"%^~(,]) ?\({1,4} ?select (?:[0-9*@'"(]|(?:all |distinct |top [0-9]{1,4} )|null|case |[\w.]{1,40} ?[(,]|[\w.]{1,40} from (?:[\w.]{1,40}\)|[\w.]{1,40} (?:where|limit|order by|group by)))/,
  },
  {
    id: "sqli-concat",
    category: "sqli",
    score: 5,
    places: FIELDS_AND_HEADERS,
    reads: "sql",
    pattern:
      /['"] ?(?:\|\||\+|%2b|,) ?\(?(?:select |n?chr? ?\( ?[0-9]|char ?\( ?[0-9]|utl_|dbms_|@@\w|sys\.|user\(|version\(|database\()/,
  },
  {
    id: "sqli-clause",
    category: "sqli",
    score: 5,
    places: FIELDS,
    reads: "sql",
    pattern:
      /(?:['"]\)?|[0-9]\)) ?(?:order|group) by [0-9]{1,3}\b|[0-9] order by [0-9]{1,3} ?(?:--|#|;|,[0-9])|^(?:-?[0-9]{1,10})? ?order by [0-9]{1,3} ?(?:--|#|$)|[0-9)] ?(?:or|and|xor|\|\||&&) (?:not )?(?:true|[0-9]{1,6}) ?(?:--|#)[ -]{0,3}$/,
  },
  {
    // A statement as such: it may be what a body is about, a query it is not.
    id: "sqli-statement",
    category: "sqli",
    score: 5,
    places: OUTSIDE_BODIES,
    reads: "sql",
    pattern:
      /\bselect (?:@@|(?:version|user|database|current_user|session_user|system_user|current_setting|current_database|pg_\w{1,30}) ?\()|\bselect (?:all |distinct |top [0-9]{1,4} )?(?:(?:\*|[\w.`]{1,40} ?\([^)]{0,40}\)|@@\w{1,30}|[0-9]{1,10}|null)(?: as \w{1,30})? ?,?(?: ?[\w.`*]{1,40} ?,){0,8} ?[\w.`*]{0,40} ?from |[\w.`]{1,40} ?,(?: ?[\w.`*()]{1,40} ?,){0,8} ?[\w.`*()]{1,40} from [\w.`]{1,40} ?(?:where|limit [0-9]|order by|group by|;|--|#|$)|[\w.`*]{1,40} from (?:users?|members?|accounts?|admins?|customers?|employees?|passwords?|credentials?|dual|information_schema|mysql\.|pg_|sys\.|sysibm|syscat|sqlite_|wp_|tbl_?)\w{0,30}(?: |;|$|\.)|[\w.`*]{1,40} from [\w.`]{1,40} (?:where [\w.`]{1,40} ?[=<>]|limit [0-9]|order by [\w.]{1,40}(?: desc| asc|--|;|$)))|\binsert into [\w.`]{1,40} ?(?:\([^)]{0,100}\) ?)?(?:values ?\(|select )|\bupdate [\w.`]{1,40} set [\w.`]{1,40} ?= ?['"0-9(]|\bdelete from [\w.`]{1,40} (?:where [\w.`]{1,40} ?[=<>]|;|--)|\b(?:drop|truncate) (?:table|database|schema) (?:if exists )?[\w.`]{1,40} ?(?:;|--|#|cascade)/,
  },
  {
    id: "sqli-catalog",
    category: "sqli",
    score: 4,
    places: FIELDS_AND_HEADERS,
    reads: "sql",
    pattern:
      /information_schema\.|\bpg_(?:catalog\.|tables|shadow|user\b|database\b)|\bsqlite_(?:master|schema)\b|\bmysql\.(?:user|db|innodb_index_stats)\b|@@(?:version|datadir|hostname|servername|basedir)|from (?:msysobjects|sysobjects|syscolumns|all_tables|user_tables|all_tab_columns|v\$version)|\bsys\.(?:databases|tables|objects|columns|schemas|sql_logins)\b/,
  },

  // Other query languages.
  {
    // Ordinary for an API that hands out Mongo's language, so a notice.
    id: "nosql-operator",
    category: "nosql",
    score: 2,
    places: ["name", "query", "cookie"],
    reads: "text",
    pattern:
      /(?:^|[[.{,] ?['"]?)\$(?:ne|eq|gte?|lte?|n?in|or|and|not|nor|regex|exists|type|expr|elemmatch|all|size|mod|where|function)(?:$|['"]? ?[\]:.[])/,
  },
  {
    // These make the database run JavaScript.
    id: "nosql-javascript",
    category: "nosql",
    score: 5,
    places: ["name", "query", "cookie"],
    reads: "text",
    pattern:
      /(?:^|[[.{,] ?['"]?)\$(?:where|function|accumulator)(?:$|['"]? ?[\]:.[])|['"] ?\)? ?(?:;|\|\||&&) ?(?:return (?:true|1|this)|this\.\w{1,32} ?[=!<>.]|while ?\( ?(?:true|1)|db\.\w{1,32}\.|sleep ?\( ?[0-9]|(?:var )?\w{1,12} ?= ?new date|(?:true|1) ?(?:\|\||;|\/\/|%00|\0))|['"] ?(?:\|\||&&) ?['"]?([0-9a-z])['"]? ?={2,3} ?['"]?\1\b/,
  },
  {
    id: "ldap-injection",
    category: "injection",
    score: 5,
    places: FIELDS,
    reads: "text",
    pattern: /^[^()]{0,64}\)\)? ?\( ?(?:[|&!] ?[()]|[a-z]{1,32} ?[=~<>])|\*\( ?[|&] ?\(/,
  },
  {
    id: "xpath-injection",
    category: "injection",
    score: 5,
    places: FIELDS,
    reads: "sql",
    pattern:
      /['"]\]? ?(?:or|and|\|) ?(?:\/\/|count ?\( ?[/.]|(?:local-)?name ?\( ?[./)]|string-length ?\(|position ?\( ?\))/,
  },
  {
    id: "xxe",
    category: "injection",
    score: 5,
    places: ["query", "cookie", "body"],
    reads: "html",
    pattern: /<!entity |<!doctype [^<>[]{0,64} system ?["']|<!doctype [^<>[]{0,100}\[ ?<!|<xi:include/,
  },
  {
    id: "prototype-pollution",
    category: "injection",
    score: 5,
    places: ["name"],
    reads: "text",
    pattern: /(?:^|[[.])__proto__(?:$|[\].[])|constructor(?:\]\[|\.|\[)prototype/,
  },
  {
    // Arithmetic that only a template would do, and what leads from a template to the language below.
    id: "template-injection",
    category: "injection",
    score: 5,
    places: FIELDS_AND_HEADERS,
    reads: "text",
    pattern:
      /(?:\{\{|[$#*@~]\{|<%=?|@\() ?['"]?[0-9]{1,9}['"]? ?[*+-] ?['"]?[0-9]{1,9}|\{\{[^{}]{0,80}(?:__|constructor|\bconfig\b|popen|getruntime|lipsum|cycler\.|joiner\.|\bself\.|request\.application|_self\b|\bsystem\b)|[$#*%]\{[^{}]{0,60}(?:t\(java|getruntime|processbuilder|forname\(|getclass\(\)|applicationscope|@java\.|#_memberaccess|\.exec\()|<%=? ?[^%]{0,40}(?:system|`|exec\b|file\.(?:open|read)|io\.popen|require|process\.)|freemarker\.template\.utility\.\w{1,20}["']|\{php\}|#set ?\( ?\$|\{% ?(?:debug|import os)|__(?:subclasses|globals|builtins|mro)__ ?[[(]|\{\{<%\[%/,
  },
  {
    id: "ssrf-metadata",
    category: "ssrf",
    score: 5,
    places: FIELDS_AND_HEADERS,
    reads: "text",
    pattern:
      /169\.254\.169\.254|169\.254\.170\.2\b|metadata\.google\.internal|metadata\.azure\.|100\.100\.100\.200|fd00:ec2::254|::ffff:a9fe:a9fe|\/\/(?:2852039166|0xa9fea9fe|0xa9\.0xfe|0251\.0376|025177524776|169\.16689662|169\.254\.43518)/,
  },
  {
    id: "ssrf-scheme",
    category: "ssrf",
    score: 5,
    places: FIELDS,
    reads: "text",
    pattern:
      /(?:^|[^a-z0-9])(?:gopher|dict|tftp|netdoc|ldapi?s?):\/\/(?:127\.|localhost|\[|0\.0|10\.|172\.|192\.168|[a-z0-9.-]{1,64}:[0-9]{1,5}\/_)|(?:^|[^a-z0-9])jar:(?:https?|file):\/|^(?:gopher|dict|netdoc):\/|^file:\/{1,3}/,
  },

  // Script in a page: read with entities and JavaScript's escapes decoded.
  {
    id: "xss-script",
    category: "xss",
    score: 5,
    places: EVERYWHERE,
    reads: "html",
    pattern: /<[/ ]?(?:[a-z0-9]{1,16}:)?script(?:[ />:"'=;]|$)/,
  },
  {
    id: "xss-handler",
    category: "xss",
    score: 5,
    places: EVERYWHERE,
    reads: "html",
    pattern:
      /<[a-z!?/][^<>]{0,256}[ /"']on[a-z]{3,24} ?=|(?:^|[ /"'>])on(?:abort|animation[a-z]{3,9}|auxclick|before[a-z]{4,12}|begin|blur|bounce|canplay|change|click|close|contextmenu|copy|cut|dblclick|drag[a-z]{0,5}|drop|end|ended|error|finish|focus(?:in|out)?|hashchange|input|invalid|key(?:down|up|press)|load[a-z]{0,9}|message|mouse[a-z]{2,5}|page(?:show|hide)|paste|play|pointer[a-z]{2,11}|popstate|progress|repeat|reset|resize|scroll(?:end)?|search|select|start|submit|toggle|touch[a-z]{3,6}|transition[a-z]{3,6}|unload|wheel|webkit[a-z]{5,24}) ?= ?["'`]?[^"'`<>{ ]{1,64}(?:[(`=]|["'][^<>]{0,40}\()/,
  },
  {
    // Needs code behind the colon: "JavaScript: The Good Parts" is a title.
    id: "xss-url",
    category: "xss",
    score: 5,
    places: FIELDS_AND_HEADERS,
    reads: "html",
    pattern:
      /(?:^|["'=(>[,; ])[ `]?j ?a ?v ?a ?s ?c ?r ?i ?p ?t ?:[^ "'<>]{0,64}(?:[(`=[{;]|\/\/|\/\*|%[0-9a-f])|["'=] ?(?:j ?a ?v ?a|v ?b) ?s ?c ?r ?i ?p ?t ?:|(?:^|["'=( ])(?:vbscript|livescript):[a-z]{1,32} ?\(|data:(?:text\/html|application\/xhtml|text\/javascript|application\/javascript)[;,]|data:image\/svg\+xml[^,]{0,32},[^<]{0,8}<(?:svg|x)[^>]{0,200} on|\bsrcdoc ?=|<base [^>]{0,64}href ?=|<style[^>]{0,64}>[^<]{0,64}@import|-moz-binding ?: ?url ?\(|style ?=[^>]{0,100}expression ?\(/,
  },
  {
    // Markup as such: rich text in a body, but nothing for a query.
    id: "xss-tag",
    category: "xss",
    score: 5,
    places: ["path", "query", "cookie", "header"],
    reads: "html",
    pattern:
      /<\/?(?:iframe|frameset|frame|object|embed|applet|meta|base|link|style|svg|math|form|img|image|video|audio|body|html|head|marquee|isindex|details|template|xml|xss|input|textarea|button|select|keygen|portal|noscript|title|plaintext|listing|bgsound|layer|a href|a xlink|div style|x on)(?:[ />"'=:]|$)/,
  },
  {
    id: "xss-code",
    category: "xss",
    score: 5,
    places: OUTSIDE_BODIES,
    reads: "html",
    pattern:
      /=(?:alert|prompt|confirm)[,;]|\((?:alert|prompt|confirm)\)|\b(?:top|self|window|parent|globalthis)\[ ?['"/0-9]|\b(?:alert|confirm|prompt)(?:\?\.)?[(`] ?(?:[0-9]|['"/]|document|window|location|origin|string|this|self|top|xss)|['"`;)}\]] ?[-+*/;,|&^]{1,3} ?(?:alert|confirm|prompt|eval|function|settimeout|setinterval|fetch|top|self|window|parent|globalthis)[(`[.]|\bdocument ?\. ?(?:location|domain|cookie|write|writeln|body)(?:\.[a-z]{1,16})? ?[=(]|\+ ?document\.|(?:^|[ '";])(?:window\.|self\.|top\.)?location(?:\.href)? ?= ?['"`]|\[ ?['"`](?:alert|eval|cookie|constructor|document|location)['"`] ?\]|string\.fromcharcode ?\(|\beval ?\( ?(?:atob|unescape|string|name|location|['"`])|\.constructor ?\( ?['"`]|\b(?:inner|outer)html ?=/,
  },

  // Commands: read without the quotes and escapes that shells drop.
  {
    id: "rce-command",
    category: "rce",
    score: 5,
    places: OUTSIDE_BODIES,
    reads: "shell",
    pattern: new RegExp(injected(String.raw`;|&\n\x60{`)),
  },
  {
    // Documents show commands, line by line; a field that becomes an argument is one line, and not a long one.
    id: "rce-command-body",
    category: "rce",
    score: 5,
    places: ["body"],
    reads: "shell",
    pattern: new RegExp(String.raw`^[^\n]{0,200}?(?:${injected(String.raw`;|&\x60{`)})`),
  },
  {
    // What documents show, too.
    id: "rce-code",
    category: "rce",
    score: 5,
    places: OUTSIDE_BODIES,
    reads: "shell",
    pattern:
      /[;|&] ?(?:echo|printf) [\w$%-]|`(?:[\w./]{0,32}\/)?(?:(?:id|ls|pwd|whoami|uname|hostname)(?: [^`]{0,64})?|(?:cat|ps|curl|wget|nc|ping|nslookup|dig|sleep|sh|bash|echo|python|perl|php) [^`]{1,64})`|(?:^|[^.\w])exec ?\( ?\w|\b(?:os\.system|os\.popen|subprocess\.(?:popen|call|run|check_output)|runtime\.exec|system|passthru|shell_exec|proc_open|pcntl_exec|popen|phpinfo|call_user_func|file_get_contents|base64_decode|create_function|child_process|execsync|spawnsync) ?\( ?[\w$()/.-]/,
  },
  {
    // $(id) of a shell; jQuery's $(id) goes on with a dot.
    id: "rce-substitution",
    category: "rce",
    score: 5,
    places: FIELDS_AND_HEADERS,
    reads: "shell",
    pattern:
      /[$<>]\( ?(?:[\w./]{0,32}\/)?(?:id|whoami|uname|hostname|cat|tac|ls|ps|env|pwd|curl|wget|nc|ncat|ping|nslookup|dig|host|sleep|ba?sh|python[0-9]?|perl|php|ruby|echo|printf|touch|rm|expr|base64|sed|awk|head|tail|cut|rev|ifconfig|netstat|<)(?:[ <>|;&/]|\)(?!\.)|$)|\$\(\( ?[0-9]{1,6} ?[+*-] ?[0-9]{1,6} ?\)\)/,
  },
  {
    id: "rce-shell",
    category: "rce",
    score: 5,
    places: ["path", "query", "cookie", "body", "header", "agent"],
    reads: "shell",
    pattern:
      /\/dev\/(?:tcp|udp)\/[\w.]|\/bin\/(?:ba|da|z|k|c|tc)?sh(?: -[ci]\b| ?[<>|&;])|\b(?:ba|da|z|k)?sh -i ?[<>&]|\bncat? -[a-z]{0,6}e ?\/|cmd(?:\.exe)? ?\/[ck] ?\w|powershell(?:\.exe)? -(?:nop|noprofile|c|command|w|ep|exec) [^(){}]{0,80}[({]|invoke-(?:expression|webrequest|mimikatz) ?[(]|\.downloadstring ?\(|-urlcache [^/]{0,40}\/|base64 (?:-d|--decode) ?\| ?\w{0,4}sh|(?:curl|wget) (?:-\w{1,6} )?[\w./:~?=&%-]{4,80} ?\| ?(?:sudo )?(?:ba|da|z)?sh\b|__import__ ?\( ?(?:os|subprocess|pty|socket)|%[a-z] in ?\([^)%]{1,80}\) ?do\b|pty\.spawn ?\(|\{(?:cat|ls|curl|wget|nc|ping|id|rm|echo|bash|sh),[^{}]{1,64}\}/,
  },
  {
    id: "rce-php",
    category: "rce",
    score: 5,
    places: ["path", "query", "cookie", "body", "header", "agent"],
    reads: "text",
    pattern:
      /<\?(?:php|=)?[^?]{0,100}(?:system|eval|exec|passthru|assert|base64_decode|phpinfo|file_put_contents|\$_(?:get|post|request|cookie|server|files))|\bo:[0-9]{1,4}:"[\w\\]{1,64}":[0-9]{1,4}:\{|\$\{ ?@?(?:print|phpinfo|sleep|system|exec|eval|passthru|md5)[a-z_]{0,10} ?\(|auto_prepend_file|allow_url_include|\$_(?:get|post|request|cookie|server|files|session)\[/,
  },
  {
    id: "rce-node",
    category: "rce",
    score: 5,
    places: FIELDS,
    reads: "shell",
    pattern:
      /process\.mainmodule\.\w{1,16}\(|child_process\)?\.(?:exec|spawn|fork)\w{0,8} ?\(|constructor\.constructor ?\(|_\$\$nd_func\$\$_|process\.binding ?\(/,
  },
  {
    id: "rce-java",
    category: "rce",
    score: 5,
    places: EVERYWHERE,
    reads: "text",
    pattern:
      /java\.lang\.(?:runtime|processbuilder)(?:\)|\(|\.getruntime ?\(|["'])|getruntime ?\( ?\) ?\. ?exec|#_memberaccess|@java\.lang|@ognl\.|class\.(?:module\.)?classloader\b|class\[['"]?(?:module|classloader)|%\{\( ?#|!!javax\.script\./,
  },
  {
    // With the nested lookups that spell "jndi" letter by letter: ${${::-j}ndi:...}, ${${lower:j}ndi:...}.
    id: "log4shell",
    category: "rce",
    score: 5,
    places: EVERYWHERE,
    reads: "html",
    pattern:
      /\$\{ ?(?:jndi ?:|[^{}]{0,16}::-|(?:lower|upper):|(?:env|sys|k8s|ctx|main|date|sd|map|web|docker|spring|bundle|java|log4j)[^{}]{0,40}:-|j\$\{|[^{}]{0,16}\$\{(?:lower|upper|env|sys|date|::))/,
  },
  {
    // CVE-2014-6271: a function definition from an environment variable's first character on.
    id: "shellshock",
    category: "rce",
    score: 5,
    places: EVERYWHERE,
    reads: "text",
    pattern: /^ ?\( ?\) ?\{/,
  },
] as const satisfies readonly Rule[];
