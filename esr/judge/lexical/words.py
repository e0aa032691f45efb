"""English word lists of the lexical judge: function words by class, how-to words that fit any topic, talk about the answer."""

import re

WORD = re.compile(r"[a-z][a-z']*")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


ARTICLES = _set("a an the")
DETERMINERS = _set("a an the my your our their his its this these those every each")
PREPOSITIONS = _set(
    "of to in on at by for with from into onto over under near through about between against during without within upon across along "
    "behind beside beneath around toward towards until"
)
CONJUNCTIONS = _set("and or but nor")
AUXILIARIES = _set("is are was were be been am has have had do does did will would can could should may might must shall")
PRONOUNS = _set(
    "i you he she it we they me him her us them that this these those which who whom whose what there here one some any all none both "
    "something anything everything nothing someone anyone everyone myself yourself itself themselves"
)
ADVERBS = _set(
    "not no as if so than then too very also just only even still yet again once when while where why how because since before after "
    "until unless though although however more most less least much many few other another such same own now soon never always often "
    "up down out off away back together well quite rather almost already further instead else ever yes okay ok oh please let lets "
    "along apart aside per via like using"
)
CONTRACTIONS = _set(
    "it's that's there's here's what's let's don't doesn't didn't isn't aren't wasn't weren't can't won't couldn't shouldn't wouldn't "
    "i'm i'll i've i'd you're you'll you've you'd we're we'll they're they'll he's she's haven't hasn't"
)
FUNCTION = DETERMINERS | PREPOSITIONS | CONJUNCTIONS | AUXILIARIES | PRONOUNS | ADVERBS | CONTRACTIONS

HOW_TO = _set(
    "first second third next finally last lastly start begin step steps way ways make makes making made use used using need needs want "
    "get gets getting keep keeps keeping put take takes taking give gives try go goes going come do done doing set help helps work works "
    "working look looks see sure careful carefully slowly gently quickly properly simply easily thoroughly good great best better right "
    "left new small large big little long short full easy simple important necessary ready done enough different two three four five "
    "ten few several time times minute minutes second seconds hour hours day days thing things part parts bit lot result end finish "
    "check repeat continue allow ensure avoid remember choose pick prepare follow add remove place move turn hold find know explain "
    "process method tip tips perfect effective successful basic important key main according complete desired whole once twice side "
    "top bottom inside outside middle people person someone hand hands"
)
"""Words that fit an answer to any how-to question; evidence for nothing unless they are among the question's own."""

META = _set(
    "question questions answer answers answering asked asking ask topic topics off-topic track wait sorry apologize apologies apology "
    "mistake mistakes error wrong right correct incorrect incorrectly distracted sidetracked drifted wandered went got lost focus "
    "refocus original actual response explanation explain attempt attempting trying tried said say saying meant mean think thinking "
    "confusion confused subject stop hold hang oops hmm hm ah uh um scratch restart starting over unrelated irrelevant relevant "
    "actually anyway sure certainly course alright yeah"
)
"""Talk about the answer itself."""

EMPTY = FUNCTION | META | _set("let's start begin try going go get come s t")
"""A passage of these words only attempts nothing."""
