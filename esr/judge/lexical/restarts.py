"""Explicit restarts: where a reply says that it starts over, found by rule and quoted by offset.

Only start-over language counts ("wait, that's not right", "let me try again"). Elaboration ("in other words"), the next step,
an alternative ("another way"), advice ("wait 5 minutes", "if that's not right, start over") and anything in quotation marks do
not. It needs no model, so it also serves as a second channel beside a judge on real replies.
"""

import re

from esr.judge.lexical.words import EMPTY, WORD
from esr.judge.locate import Span

CUES = (
    "wait", "hold on", "hang on", "sorry", "apolog", "let me", "let's", "let us", "i'll", "i'd", "i will", "i should", "i need",
    "i must", "i want", "i had", "i do", "i got", "i went", "i was", "i am", "i'm", "i have", "i've", "i made", "i mis", "i mix",
    "i seem", "i keep", "i drift", "i stray", "i wander", "i digress", "i lost", "i just", "am i ", "was i", "we should", " not ",
    "n't ", "wrong", "topic", "track", "unrelated", "irrelevant", "incorrect", "mistak", "beside the point", "scratch", "strike that",
    "forget", "ignore", "disregard", "correction", "oops", "back to", "nothing to do", "starting", "trying", "beginning",
    "never mind", "nevermind", "attempt", "take two", "second try", "new try", "another try", "you asked", "the question was",
    "nonsense", "my bad", "second thought", "gibberish", "no sense", "none of", "rails", "the plot", "time to get", "garbage", "enough ", "pardon", "forgive", "to return", "to answer", "restarting", "refocusing", "backtracking", "no connection", "no relation", "in common", "allow me", "returning", "no idea why", "take that back", "where was i", "where were we",
    "the above", "time to", "excuse", "actually answer", "i meant", "making any sense", "focus", "confus", "came out",
)  # fmt: skip
"""A reply without any of these holds no restart; the patterns are only tried on the others."""

PAUSE = r"\s*[,.!;:…—–-]+\s*|\s+"
NOT = (
    r"not\s+(?:quite\s+|at\s+all\s+|really\s+|actually\s+|even\s+)?(?:right|correct"
    r"|about(?!\s+(?:the\s+(?:money|number|size|fame)|being|having|getting|doing|making|winning|just|only|how\s+(?:much|many|often))\b)|relevant|related|on\s+topic|accurate|helpful"
    r"|what\s+(?:you\s+(?:asked|wanted|were\s+asking)|i\s+(?:meant|should|wanted\s+to\s+(?:say|write|explain|tell)|was\s+(?:asked|supposed|going|trying|meant|saying|talking|asking))"
    r"|was\s+asked|the\s+question)|an?\s+answer|it\s*[.,!;:]"
    r"|(?:the|your|my)\s+(?:right\s+|correct\s+|actual\s+)?(?:question|topic|answer|subject|task|point))"
)
BAD = (
    r"(?:wrong|incorrect|mistaken|off[\s-]*(?:topic|track)|unrelated|irrelevant|nonsense|gibberish|garbage|beside\s+the\s+point"
    r"|(?:a|my)\s+mistake(?=\s*[.,!;:—–-])|no\s+sense)"
)
THAT = (
    r"(?:that|this|(?:all|none|most|some)\s+of\s+(?:that|this|it)|what\s+i\s+(?:just\s+|have\s+)?(?:said|wrote|written)"
    r"|(?:that|the|my)\s+(?:last|previous|first|whole)\s+(?:part|bit|sentence|answer|paragraph|attempt|passage|response|thing)"
    r"|(?:that|my)\s+(?:explanation|answer|response|description)|the\s+(?:answer|explanation|response|text|part)\s+(?:i\s+(?:gave|wrote)\s+)?above"
    r"|what\s+i\s+(?:said|wrote)\s+about\s+(?:the\s+)?\w+|the\s+above|(?:everything|all)(?:\s+i\s+(?:just\s+)?(?:said|wrote))?\s+above)"
)
IT = rf"(?:it|{THAT})"
FAILS = (
    rf"\s*(?:(?:'s|is|was|seems|sounds|made|makes|were)\s+(?:all\s+|completely\s+|totally\s+|just\s+|clearly\s+|entirely\s+)?(?:{NOT}|{BAD})"
    rf"|(?:isn't|wasn't)\s+(?:{NOT[6:]}|(?:answering|addressing)\s+(?:the|your))|(?:has|had|have)\s+(?:nothing\s+to\s+do\s+with|no\s+(?:connection|relation|relevance)\s+(?:to|with)|nothing\s+in\s+common)"
    r"|(?:doesn't|does\s+not|didn't|did\s+not)\s+(?:answer|make\s+(?:any\s+)?sense|belong|relate|address|have\s+anything|(?:seem|sound|look)\s+(?:right|correct|relevant)|come\s+out\s+(?:right|wrong))|came\s+out\s+(?:all\s+)?wrong"
    r"|\s*(?:'s|is|was)\s+(?:all\s+)?about\s+(?:the\s+wrong|something\s+(?:else|(?:completely\s+|very\s+)?different)))"
)
NOT_RIGHT = rf"(?:{IT}{FAILS}|none\s+of\s+(?:that|this|it)\s+(?:is|was)\s+(?:right|correct|about|relevant|related|helpful|what))"
WILL = (
    r"(?:let\s+me|allow\s+me\s+to|i(?:'ll|\s+will|\s+should|\s+need\s+to|\s+must|\s+have\s+to|\s+want\s+to|'m\s+going\s+to"
    r"|\s+am\s+going\s+to|'d\s+better|\s+had\s+better|\s+shall|'d\s+like\s+to|\s+would\s+like\s+to))\s+(?:please\s+|just\s+|now\s+|quickly\s+)?"
)
US = rf"(?:{WILL}|time\s+to\s+|let's\s+|let\s+us\s+|we\s+should\s+)"
TASK = (
    r"(?:the|your|my|our)\s+(?:original\s+|actual\s+|real\s+|first\s+)?(?:question|topic|task|point|subject|answer|prompt|matter)"
)
OFF = (
    r"(?:off[\s-]*(?:topic|track|course|subject|point|on\s+a\s+tangent)|distracted|side-?tracked|carried\s+away|astray|confused|mixed\s+up"
    r"|(?:away\s+)?from\s+(?:the|your|my)\s+(?:question|topic|subject|point)|rambling|drifting|off\s+the\s+rails|away\b)"
)
SELF = (
    r"i(?:'m|'ve|\s+(?:was|am|have|should|need|must|think|thought|didn't|don't|did\s+not|do\s+not|meant|misread|misunderstood|forgot|made|lost"
    r"|said|wrote|seem|answered|just|went\s+off|drifted|strayed|wandered|digressed|mixed))\b"
)
WAIT = r"(?:wait|hold\s+on|hang\s+on)(?:\s+(?:a|one)\s+(?:second|minute|moment|sec)|\s+up)?"
LETTER = r"(?![^.!?\n]{0,40}\b(?:message|e-?mail|letter|delay|inconvenience)\b)"
"""An apology for one of these is a letter's, or an assistant's who takes the turn for one of many: nothing here was said before."""
ANYWHERE = re.compile(
    rf"""\b(?:
    (?:{WAIT}|sorry|oh\s+no|oops|whoops|(?:my\s+)?apologies|i\s+apologi[sz]e|i'm\s+sorry|i\s+am\s+sorry|excuse\s+me|my\s+mistake|my\s+bad|never\s?mind|on\s+second\s+thought)(?:{PAUSE})
        (?:(?:wait|no|sorry|actually|hmm+|but|oh|hold\s+on|i\s+think|i\s+guess)(?:{PAUSE})){{0,3}}{NOT_RIGHT}
  | {WAIT}\s*[,.!…—–-]+\s*(?:no\b(?!\s+(?:longer|more|less|matter|need|one))|what\b(?!\s+(?:about|if|a)\b)|why\b|(?:that|this)(?:'s|\s+is)\s+not\s+how\b|(?:that|this)\s+can't\s+be\b|sorry\s*,\s*{SELF}|actually\b
        |{SELF}|let\s+me\b|you\s+(?:asked|wanted)|the\s+question|stop\b|hold\s+on|hmm|scratch|back\s+to|wrong\b|not\s+(?:that|right|quite)
        |something(?:'s|\s+is)\s+(?:wrong|off|not))
  | no\s*,\s*(?:no\s*,\s*)?wait\b(?!\s+(?:for|until|a\b|an\b|\d))
  | (?:i(?:'ve|\s+have)?\s+(?:just\s+|really\s+|completely\s+|seem\s+to\s+have\s+|must\s+have\s+|think\s+i\s+)?
        (?:went|gone|got|gotten|drifted|strayed|wandered|veered|slipped|slid|moved|keep\s+\w+ing|was\s+\w+ing|been|was(?!\s+(?:distracted|confused|carried\s+away)\s+by\b)|am\s+\w+ing|am)
       |i'm\s+(?:\w+ing)?)\s*(?:\w+\s+){{0,2}}?{OFF}
  | i\s+(?:digressed|digress|misspoke|misread|misunderstood\s+(?:the|your))\b
  | i(?:'ve|\s+have)?\s+(?:just\s+)?(?:lost\s+(?:my\s+(?:train|thread|way(?!\s+(?:in|through|at|to|on|among|home)\b)|focus)|the\s+thread|track\b)|made\s+(?:a\s+mistake|an\s+error)
        (?=\s*[.,!;:…—–-]|\s+(?:there|here|above|earlier|before|by|and|so|with\s+(?:that|this)|in\s+(?:my|the|that|this)\s+(?:last|previous|first|whole|earlier|answer|response|explanation)))
        |(?:been|was|am)\s+(?:talking|writing|rambling|going\s+on)\s+about\s+(?:the\s+wrong|something\s+else|something\s+completely)
        |answer(?:ed|ing)\s+(?:a\s+different|the\s+wrong|another)\s+question|lost\s+the\s+plot|(?:gone|went)\s+(?:\w+\s+)?off\s+the\s+rails
        |got\s+(?:that|this|it)\s+(?:wrong|backwards)|mixed\s+(?:that|this|it|things|something)\s+up|was\s+wrong\b(?!\s+about\s+(?!(?:that|this|it|everything|all)\b)))
  | i\s+(?:do\s+)?apologi[sz]e\s+for\s+(?:that|the\s+(?:confusion|mistake|error|digression|tangent|detour|irrelevant|earlier|previous|mix|mistaken)
        |digressing|\w+ing\b(?=\s*[.,!;:]|\s+(?:off|on|away|from|about))|my|any\s+confusion){LETTER}
  | (?:my\s+)?apologies\s+for\s+(?:that|the\s+(?:confusion|mistake|error|digression|tangent|detour|irrelevant|earlier|previous|mix)|going|drifting|my){LETTER}
  | i\s+didn't\s+mean\s+to\s+(?:talk|write|ramble|say\s+(?:that|this|all)|go\s+(?:on|off))\b
  | i\s+(?:was\s+confusing|am\s+confusing|(?:have\s+)?confused)\s+(?:this|that|it|two|these|things|your)\b
  | {US}try\s+(?:a\s+(?:different|new|better)|another)\s+(?:answer|response|explanation)\b
  | {WILL}focus\s+on\s+(?:the|your)\s+(?:actual\s+|original\s+)?question\b
  | i\s+meant\s+to\s+(?:talk\s+about|explain|answer)\s+(?:{TASK}|something\s+else|how\b)
  | i(?:'m|\s+am)\s+not\s+making\s+(?:any|much)\s+sense\b
  | (?:sorry|pardon|excuse|forgive)\s+(?:about\s+|for\s+|me\s+for\s+)?(?:that\b(?=\s*[.,!;:—–-])|the\s+(?:confusion|mistake|error|digression|tangent|detour|irrelevant|earlier|previous|mix)|going|drifting|getting\s+off)
        (?![^.!?\n]{{0,20}},\s*but\s+(?:as\s+an?\b|i'm\s+(?:just|an?|unable|not\s+able)\b|i\s+can))
  | (?:what|why)\s+(?:am|was)\s+i\s+(?:saying|doing|writing|talking|telling|describing|on\s+about|going)
  | i(?:\s+(?:have\s+not|haven't|did\s+not|didn't|am\s+not)|'m\s+not|'ve\s+not|\s+was\s+not|\s+wasn't)\s+(?:even\s+|actually\s+|really\s+|yet\s+)?answer(?:ed|ing)?\s+(?:{TASK}|what\s+you)
  | none\s+of\s+(?:that|this|it)\s+answers\s+{TASK}
  | you\s+(?:didn't|did\s+not|never)\s+ask\s+(?:me\s+)?(?:about|for|to|how)\b
  | i\s+(?:don't\s+know|have\s+no\s+idea)\s+(?:why\s+i\s+(?:brought|started|am|was|said|wrote|mentioned|went)|where\s+(?:that|this|all\s+(?:of\s+)?that)\s+came\s+from)\b
  | i\s+take\s+(?:all\s+(?:of\s+)?)?that\s+back\b
  | i\s+should\s+(?:be|have\s+been)\s+(?:explaining|answering|describing|telling\s+you)\b
  | {US}(?:try|start|begin|attempt)\s+(?:(?:that|this|it|(?:my|the|this|that|your)\s+(?:whole\s+)?(?:answer|response|explanation|question)|answering|to\s+answer|explaining)\s+)?
        (?:over|again|afresh|anew|from\s+(?:scratch|the\s+(?:start|beginning|top))|once\s+more|one\s+more\s+time|fresh)\b(?!\s+(?:of|with|on|at|in|next|tomorrow|later|until|every|when|after|if|as\s+soon)\b)
  | {US}(?:take|have|make|give\s+(?:this|that|it))\s+(?:another|a\s+(?:second|new|fresh))\s+(?:shot|try|go|stab|attempt|crack)\b
  | {WILL}(?:rewind|reconsider|rethink|pause\s+and|actually\s+answer\s+(?:{TASK}|what\s+you|you\b|this\b|it\b)|(?:take\s+a\s+)?step\s+back\s+and\s+(?:answer|start|begin|refocus)
        |answer\s+(?:this\s+|that\s+|it\s+|the\s+question\s+|your\s+question\s+)?properly)\b
  | {US}(?:redo|restart|rewrite|scrap|erase|abandon|discard|undo|throw\s+out|take\s+back)\s+(?:that|this|it|all|everything|my\s+\w+|the\s+answer|the\s+whole)\b
  | {US}(?:get|go|come|bring\s+(?:this|us|myself|it)|return|turn|steer\s+(?:this|us|myself|it)|switch)\s+(?:right\s+|straight\s+)?(?:back\s+)?
        (?:to\s+(?:{TASK}|what\s+(?:you|was|i\s+was)\s+(?:asked|asking)?)|on\s+(?:track|topic))
  | {WILL}(?:get|go|come)\s+(?:right\s+|straight\s+)?back\s+(?:to\s+(?:it\b|this\b|what\b|how\b|explaining|answering
        |the\s+(?:\w+\s+){{0,3}}(?:question|topic|steps?|answer|task|instructions?|explanation|point|subject|matter)\b)|and\s+(?:answer|start|begin)\b|\s*[.!])
  | {WILL}(?:correct|fix)\s+(?:that\b|this\b|myself|my\s+(?:answer|mistake|error|previous|earlier)|the\s+(?:answer|mistake|error)|(?:something|what)\s+i\s+(?:just\s+)?(?:said|wrote))
  | {WILL}(?:refocus|backtrack|focus\s+again|back\s+up|stop\s+(?:there|here|myself|and)|stay\s+on\s+topic|answer\s+(?:the|your)\s+(?:actual|original|real)\s+question)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
OPENER = r"(?:(?:so|please|ok|okay|well|but|and|anyway|now|oh|ah|hmm+|actually|no|nope|right|alright|um|uh|however|stop|yes)(?:\s*[,.!…—–-]+\s*|\s+)){0,3}"
AT_START = re.compile(
    rf"""\b{OPENER}(?:
    (?:(?:i\s+(?:realize|realise|see|notice|think|believe)\s+(?:now\s+)?(?:that\s+)?)?{THAT}{FAILS}|none\s+of\s+(?:that|this|it)\s+(?:is|was)\s+(?:right|correct|about|relevant|related|helpful|what))
        (?!\s+(?:only\s+|just\s+|but\s+)?(?:to(?!\s+(?:{TASK}|this|what|say|write|tell|know|hear|read)\b)|if|when|for|in|with|because|until|unless|at|as|by|on)\b)
  | (?:back|returning|turning\s+back|going\s+back)\s+(?:to\s+(?:{TASK}|what\s+you\s+asked)|on\s+(?:track|topic))
  | (?:to\s+(?:get|go|come)|getting|going|coming)\s+back\s+(?:to\s+{TASK}|on\s+(?:track|topic))
  | to\s+(?:return\s+to|actually\s+answer)\s+(?:your|the)\s+(?:original\s+|actual\s+)?(?:question|topic)
  | to\s+answer\s+(?:your|the)\s+(?:(?:original|actual|real)\s+question|question\s*[:—–])
  | enough\s+(?:of|about)\s+(?:that|this|those)
  | enough\s+about\s+(?:\w+\s+)?\w+(?=\s*[.!;—–])
  | focus\s*[.!](?=\s*(?:the\s+question|you|i\b|back))
  | (?:where\s+was\s+i|where\s+were\s+we)\s*\?
  | (?:restarting|refocusing|backtracking|let\s+me\s+see\s+the\s+question\s+again)\s*(?:now\s*)?[.,!:;—–-]
  | wrong\s+(?:topic|subject|question|direction|answer|thing)\s*[.,!:;—–-]
  | (?:scratch|strike|never\s?mind)\s+(?:all\s+(?:of\s+)?)?that\b
  | (?:forget|ignore|disregard)\s+(?:that\b(?=\s*[.,!;:…—–\n-])|what\s+i\s+(?:just\s+)?(?:said|wrote)|(?:the|everything|all(?:\s+of)?\s+that)\s+above
        |my\s+(?:last|previous|earlier)\s+(?:answer|attempt|response|words|sentences?))
  | correction\s*[:,—–-]
  | (?:oops|whoops)\s*[,.!…—–-](?=[\s,.!…—–-]*(?:i\b|that|this|those|these|it\b|none|wrong|let\b|sorry|my\b|no\b|not\b|you\s+asked|the\s+question|back|wait|scratch|got|went|never|actually|starting))
  | my\s+(?:mistake|bad)\s*[,.!…—–-]
  | sorry\s*[,.!…—–-]+\s*(?:{SELF}|where\s+was\s+i|(?:that|this)\s*(?:'s|is|was|has|had|isn't|wasn't)\b|let\s+me\b|let's\b|back\b|wrong\b|my\b|you\s+asked|the\s+question|it\s+(?:is|was|should)|no\s*[,.!—–-])
  | (?:starting|trying|beginning)\s+(?:over|again|afresh|anew|from\s+scratch)\s*[.:,!—–-]
  | (?:take\s+two|(?:second|new|another)\s+(?:try|attempt)|attempt\s+(?:two|2|three|3|number\s+\w+))\s*[.:!—–-]
  | (?:you\s+asked\s+(?:me\s+)?(?:about|how\s+(?:to|you|one|do)\b|for|to\s+(?:explain|describe|tell|write|talk|answer|show|give|make|do|know)\b)
        |the\s+question\s+was\s+(?:about|how|not|to|what|actually|really|something|asking|on)\b)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
ADVICE = re.compile(
    r"\b(?:if|when|whenever|unless|whether|until|say|says|said|saying|tell|tells|telling|(?<!\bi\s)think|thinks|thinking|thought|ask|asks|asking"
    r"|shout|shouts|shouting|like|phrases?|words?|write|writes|writing|wrote|type|reply|respond|hear|hears|mutter|because"
    r"|case|you|they|he|she|people|who|mean|means)\s*[,:]?\s*$",
    re.IGNORECASE,
)
"""What stands right before a phrase that is reported, conditional or advised, not done."""
REPORTED = re.compile(
    r"[^.!?\n\x00]{0,50},\s*(?:(?:said|thought|cried|shouted|whispered|replied)\s+(?:the|a|an|he|she|my|his|her)\b"
    r"|(?!(?:i|you|we)\b)(?:\w+\s+){1,3}(?:said|thought|cried|shouted|whispered|replied)\s*[,.!?\n])",
    re.IGNORECASE,
)
"""What follows a phrase that someone in a story says."""
QUOTED = re.compile(
    r"(?<![\w\"])\"(?=\S)[^\"\n]{0,400}?(?<=\S)\"(?!\w)|“[^”\n]{0,400}”|«[^»\n]{0,400}»|`[^`\n]{1,400}`"
    r"|(?<!\w)['‘](?=\w)[^\n\"]{1,200}?(?<=\S)['’](?!\w)"
)
TAIL = re.compile(r"(?:[^\S\n]*[^\s.!?:;,\n…—–]+){0,8}?[^\S\n]*[.!?:;,\n…—–-]+[\s\"'”’)]*")
"""The rest of the restart's own clause, up to eight words."""
AGREED = re.compile(
    r"(?:so|but|and|ok|okay|now|right|yes)?[\s,]*(?:you\s+(?:asked|wanted)|the\s+(?:original\s+|actual\s+)?(?:question|task|topic|prompt)\s+(?:is|was)"
    r"|i\s+(?:was|am|should|need|must|will|want)\s+(?:supposed|asked|meant|to\s+(?:stay|focus|stick|answer|stop|explain|talk)|be\s|stay|focus|stick|answer|stop)"
    r"|i'(?:m|ll)\s+(?:supposed|meant|stay|focus|stick|answer|stop)|my\s+(?:task|job)\s+(?:is|was)"
    r"|here(?:'s|\s+is)\s+(?:the|a|my)\s+(?:\w+\s+)?(?:answer|explanation|attempt|response)|stop|sorry|ok|okay|focus|let\s+me\s+(?:answer|explain|focus|think))"
    r"(?:[^\S\n]*[^\s.!?:;\n…]+){0,14}?[^\S\n]*[.!?:;\n…]+\s*",
    re.IGNORECASE,
)
"""A sentence of acknowledgement that belongs to the restart before it."""
LEAD = re.compile(
    r"(?:\b(?:actually|i'm\s+(?:so\s+)?sorry|i\s+am\s+(?:so\s+)?sorry|sorry|wait|oh|no|hold\s+on|hang\s+on|hmm+|but|well|oops|whoops|ok|okay|so|ah|uh|um|stop|anyway|i\s+(?:see|think|guess|notice|realize|realise)"
    r"(?:\s+that)?)[\s,.!…—–-]+)+$",
    re.IGNORECASE,
)
"""Interjections right before the phrase, part of the restart."""
BROKEN_OFF = re.compile(r"\b(?:wait|sorry|hold\s+on|hang\s+on|oops)\s*[,!.…—–-]+[^.!?\n]{0,60}[.!?…]+\s*$", re.IGNORECASE)
"""A sentence that begins as a restart and goes on as something else, right before one that succeeds: part of it."""
ENDS = frozenset('.!?:;…\n—–-"”’)*,\x00')


def restarts(reply: str) -> list[Span]:
    """Every passage of start-over language, in order and apart, with the acknowledgement that follows it."""
    low = reply.replace("’", "'").lower()
    if not any(cue in low for cue in CUES):
        return []
    text = _masked(reply)
    found: list[Span] = []
    for match in _matches(text):
        if found and match.start() < found[-1].end:
            continue
        floor = found[-1].end if found else 0
        lead = _lead(LEAD, text, floor, match.start())
        start, end = _lead(BROKEN_OFF, text, floor, lead), _clause_end(text, match)
        if found and not has_content(reply[found[-1].end : start]):
            found[-1] = Span(found[-1].start, end)
        else:
            found.append(Span(start, end))
    return found


def passages(reply: str) -> list[Span]:
    """The attempts between the restarts, without the restarts themselves and without empty ones; whitespace trimmed."""
    out, at = [], 0
    for cut in [*restarts(reply), Span(len(reply), len(reply))]:
        piece = reply[at : cut.start]
        if has_content(piece):
            left = len(piece) - len(piece.lstrip(" \t\r\n,;:-–—…"))
            out.append(Span(at + left, at + len(piece.rstrip())))
        at = cut.end
    return out


def has_content(piece: str) -> bool:
    """Whether anything is attempted in it: a word beyond function words and talk about the answer itself, or a number."""
    return any(word not in EMPTY for word in WORD.findall(piece.lower())) or any(c.isdecimal() for c in piece)


def _matches(text: str) -> list[re.Match[str]]:
    anywhere = [m for m in ANYWHERE.finditer(text) if not ADVICE.search(text, max(0, m.start() - 24), m.start())]
    start = [m for m in AT_START.finditer(text) if _at_start(text, m.start())]
    told = [m for m in [*anywhere, *start] if not REPORTED.match(text, m.end())]
    return sorted(told, key=lambda m: (m.start(), -m.end()))


def _lead(rule: re.Pattern[str], text: str, floor: int, at: int) -> int:
    """Where what belongs to the restart at `at` begins."""
    found = rule.search(text, max(floor, at - 90), at)
    return found.start() if found else at


def _at_start(text: str, at: int) -> bool:
    """A sentence begins here, by what stands before it or by its capital."""
    before = text[:at].rstrip()
    return not before or before[-1] in ENDS - {","} or (text[at].isupper() and text[at : at + 2] not in ("I ", "I'"))


def _clause_end(text: str, match: re.Match[str]) -> int:
    end = match.end()
    if text[end - 1] not in ".!?:;":
        tail = TAIL.match(text, end)
        end = tail.end() if tail else _word_end(text, end)
    else:
        end += len(text[end:]) - len(text[end:].lstrip())
    while agreed := AGREED.match(text, end):
        end = agreed.end()
    return end


def _word_end(text: str, end: int) -> int:
    rest = re.compile(r"\w*\s*").match(text, end)
    return rest.end() if rest else end


def _masked(reply: str) -> str:
    """The reply with straight apostrophes and every quotation blanked, position for position."""

    def blank(match: re.Match[str]) -> str:
        return match[0] if len(match[0]) > 0.8 * len(reply) else "\x00" * len(match[0])

    return QUOTED.sub(blank, reply).replace("’", "'")
