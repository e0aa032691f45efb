"""Write tests/data/lexical_cases.jsonl: replies with the number of attempts and the score bands a reader would give them.

Knows nothing of the judge: sentences, restarts and traps below were written by hand in plain English, and cases are put together
from them by a seeded draw. Run it again only when cases are to change; every line of the result was looked over.
"""

import json
import random
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "tests" / "data" / "lexical_cases.jsonl"

HIGH, LOW, MIDDLE, POOR = (65, 100), (0, 20), (20, 75), (0, 40)

ON = {
    "How do you make a good cup of coffee?": [
        "Start by grinding fresh coffee beans to a medium size.",
        "Heat the water in a kettle until it is just below boiling.",
        "Place a filter over your mug and pour the water slowly over the grounds.",
        "Let it brew for about four minutes and enjoy the aroma before the first sip.",
    ],
    "Explain how to change a bike tire.": [
        "Remove the wheel from the bike and let the remaining air out of the tube.",
        "Slide a tire lever under the bead and work it around the rim.",
        "Check the flat tube for the hole, patch it, and put it back inside the tire.",
        "Finally, pump the tire up and mount the wheel on the axle.",
    ],
    "How do you properly iron clothes?": [
        "Set the iron to the right heat for cotton or another fabric.",
        "Lay the shirt flat on the board and press the collar first.",
        "Use steam on every stubborn wrinkle, then move to the sleeve and the cuff.",
        "Hang the shirts right away while they are still warm.",
    ],
    "Explain how to start composting.": [
        "Pick a bin or a pile in a shady spot of the garden.",
        "Add a layer of brown leaves, then kitchen scraps and fruit peel.",
        "Turn the compost every week and moisten it when it looks dry.",
        "Worms will break the organic matter down into dark soil.",
    ],
    "How do you make a perfect omelette?": [
        "Crack three eggs into a bowl, season them, and whisk until they are even.",
        "Melt the butter in a pan over medium heat.",
        "Pour in the eggs and pull the edges in with a spatula.",
        "Add cheese and herbs, then fold the omelette while the middle is still runny.",
    ],
    "Explain how to add two fractions.": [
        "Find a common denominator for both fractions.",
        "Convert each fraction so that it has that denominator.",
        "Add the numerators and keep the denominator.",
        "Simplify the sum if both numbers share a factor.",
    ],
    "How do you solve quadratic equations?": [
        "Write the equation so that one side is zero.",
        "Try to factor it, or use the quadratic formula with its coefficients.",
        "The discriminant tells you how many real roots there are.",
        "Substitute each root back into the equation to test it.",
    ],
    "Explain how to properly clean a window.": [
        "Mix vinegar and water and spray the glass from top to bottom.",
        "Wipe the pane with a soft cloth.",
        "Pull a squeegee down in one motion so that no streak remains.",
        "Dry the frame and polish the glass until it is shiny.",
    ],
    "How do you make a basic budget?": [
        "Write down your monthly income after tax.",
        "List every expense, such as rent, each bill and groceries, by category.",
        "Cut what you spend on the largest category if the money runs short.",
        "Track the budget each month and move the rest into savings.",
    ],
    "Explain how to tie a necktie.": [
        "Drape the tie around your neck with the wide end lower than the narrow end.",
        "Cross the wide end over and loop it behind.",
        "Pull it through the front of the knot and tighten.",
        "Slide the knot up to the collar until it is snug.",
    ],
}
FREE = {
    "How do you bake sourdough bread?": [
        "Feed your sourdough starter the evening before you bake.",
        "Mix flour, water and salt and let the dough rest.",
        "Shape the loaf, let it proof, and bake the bread in a covered pot.",
    ],
    "Explain how to pitch a tent.": [
        "Spread the tent on level ground and unfold the poles.",
        "Thread the poles through the sleeves and raise the tent.",
        "Drive the stakes into the ground and tighten the guy lines.",
    ],
    "How do you sharpen a kitchen knife?": [
        "Soak the whetstone and hold the knife at a steady angle.",
        "Draw the blade across the stone to sharpen one side.",
        "Switch sides and finish the knife on the fine grit.",
    ],
    "Explain how to tune a guitar.": [
        "Pluck the lowest string of the guitar and compare it with the tuner.",
        "Turn the peg to tune the string up or down.",
        "Go on with the next string until the whole guitar is in tune.",
    ],
}
OFF = [
    "The castle was guarded by a deep moat and a heavy drawbridge. Prisoners were kept in the dungeon below the tower.",
    "Penguins huddle in large colonies on the ice. Each chick hides under the plumage of a parent while krill is scarce.",
    "A volcano erupts when magma rises through the vent. Lava then flows down from the crater.",
    "The pharaoh was buried in a pyramid beside the Nile. His mummy lay in a tomb full of hieroglyphs.",
    "Pirates sailed the seas on a galleon and plundered treasure. The captain kept a parrot and a cutlass.",
    "Sharks hunt along the reef with sensitive fins. Their jaws hold rows of sharp teeth.",
    "The astronaut stepped from the lander onto the moon. The rocket and its capsule had flown for days.",
    "The samurai served the shogun with a katana. Every clan followed bushido.",
    "A glacier leaves a moraine behind in the valley. Deep crevasses open near the fjord.",
    "Bees carry nectar and pollen back to the hive. The beekeeper watches the swarm.",
]
RESTARTS = [
    "Wait, that's not right.", "Wait, that is not right. Let me try again.", "Let me try again.", "Let me start over.",
    "Sorry, I went off topic. Let me start over.", "Hold on, this is not about the question. Let me try again.",
    "Actually, I got distracted. Let me go back to the question.", "No, wait. That has nothing to do with it.", "Oops, wrong topic.",
    "I apologize for the confusion. Let me correct that.", "Scratch that.", "That's not what you asked.", "Hmm, that is off topic.",
    "I seem to have drifted away from the question.", "Let me get back to the question.", "I'll try this again from the beginning.",
    "Sorry about that. I made a mistake.", "Wait, no.", "Wait, what am I talking about?", "I should get back on track.",
    "Let's start over.", "Correction:", "My mistake. Let me answer the actual question.", "Forget what I just said.",
    "I got sidetracked. Back to the question.", "Hang on, I think that's wrong.", "I need to stop and refocus.",
    "That was completely unrelated.", "Ignore the above.", "I was rambling. Let me begin again.", "Stop. This is not relevant.",
    "I am going off track here. Let me return to the topic.", "Wait — I lost my train of thought.", "That doesn't answer the question.",
    "Let me restart my answer.", "wait , that is not right . let me try again .", "Okay, let me start again from scratch.",
    "I’m sorry, I got carried away. Let’s try that again.", "Apologies for the digression. Starting over:", "I misread the question.",
    "Wait, you asked about something else.", "Anyway, back to your question.",
]  # fmt: skip
CALM = [
    "In other words, take your time.", "Another way is to do it the day before.", "Next, do the same on the other side.",
    "Wait 5 minutes.", "Wait until it has cooled.", "Then wait, and do it once more.", "Again, be careful here.",
    "Let me explain this further.", "Let me give you an example.", "To elaborate, every step builds on the last.",
    "If that's not right, start over from the first step.", "If you make a mistake, try again.", "Alternatively, ask someone to help.",
    "Hold on to it firmly while you work.", "Don't start over; just go on from there.", "It is wrong to hurry.",
    "Sorry to say, there is no shortcut.", "Let me put it differently.", "Let's move on to the next part.", "Start over there on the left side.",
    "You may have to try again and again.", "Keep going back to the first step as needed.", "Actually, this part is easy.",
    "No, it is not hard.", "Remember that it is not the end of the world.", "You should correct any mistakes as you go.",
    "This is the right way.", "Finally, go back and check everything.", "Well, that was the hardest part.", "Let me summarize.",
    "He said \"wait, that's not right\" and laughed.", "Someone may tell you “let me start over”, which is fine.",
    "Say 'sorry, I made a mistake' if it goes wrong.", "Words like \"scratch that\" are not needed here.",
    "When you think that it is wrong, wait a moment.", "Try it again tomorrow.", "Most people get it wrong the first time.",
    "On top of that, keep it dry.", "To repeat, slow is good.", "First, let me list what you need.",
]  # fmt: skip
MORE_RESTARTS = [
    "Hmm, wait. I don't think that answers what you asked.",
    "Let me pause and reconsider: the question was about something else.",
    "Sorry, none of that was relevant.",
    "Okay, that made no sense. Once more from the top.",
    "I realize I have been talking about the wrong thing entirely.",
    "Let me redo this properly.",
    "Ah, I've gone completely off the rails.",
    "That last part was a mistake.",
    "Let me take another shot at this.",
    "I'll start fresh.",
    "Please disregard my previous response.",
    "Wait, why am I telling you about this?",
    "Oh no, that isn't what you wanted at all.",
    "Excuse me, let me try to answer again.",
    "I keep drifting off topic. Focus.",
    "Actually, scratch all of that.",
    "Hold on. I'm confusing two things here. Let me try once more.",
    "That is clearly not the answer you need. Starting again.",
    "My apologies, that was gibberish. Here is the real answer.",
    "No! That's wrong. Again:",
    "Let me rewind.",
    "I think I lost the plot there. Let me start again.",
    "Time to get back on topic.",
    "Wait a second, that's not related to your question.",
    "Wait a minute, I was supposed to explain something else.",
    "Never mind all that; let me answer properly.",
    "I must apologize, I strayed from the subject.",
    "Enough of that. Back to your question.",
    "Whoops, I answered a different question.",
    "Let me correct myself.",
    "Wait, I've been describing castles. Let me explain the actual steps.",
    "Hmm, I think I wandered off there. Let me start from the top.",
    "Sorry, this is nonsense. I'll begin again.",
    "Hold up, that has no connection to what you asked.",
    "I apologize for rambling. To answer your question:",
    "No, that's not it. Let me think again.",
    "Whoa, where did that come from? Back on track.",
    "I have to stop myself here and return to the question.",
    "That was a tangent. Let me return to the actual task.",
    "Okay, wrong direction. Let me try a different way of answering from scratch.",
    "I need to start this answer over.",
    "Sorry, wrong subject.",
    "This isn't answering the question. Restarting.",
    "Let me abandon that and start afresh.",
    "Wait, sorry, I lost focus.",
    "Let me scrap that.",
    "I'm off topic again. Refocusing now.",
    "Pardon the digression. Returning to the question,",
    "That came out wrong. Let me try that again.",
    "Hmm, that does not make sense. Let me redo it.",
    "I should be talking about your question instead.",
    "Let me erase that and answer again.",
    "Right, enough about that. To return to the topic:",
    "I'm sorry for the confusion. Here's the correct answer:",
    "Error: that was the wrong topic. Second attempt:",
    "Wait... what? No. Let me go back.",
    "I misspoke.",
    "You asked how to do something else. Let me address that.",
    "I was wrong about that. The correct steps are these:",
    "Strike that.",
    "Wait, this isn't what I was asked to explain.",
    "Oh, I got carried away talking about that.",
    "Let me stop and begin again.",
    "Sorry, I lost my way. Here we go again:",
    "That is irrelevant here. Let me try once more.",
    "Hmm, I drifted off. Returning to your question.",
    "No no, that's incorrect. Let me start again.",
    "I made an error above. Let me fix it.",
    "Hold on, I think I answered the wrong question.",
    "I went on a tangent. Let me get back to it.",
    "Actually, that was wrong.",
    "Let me try to answer that again.",
    "I got confused. Starting over.",
    "Oops! That's the wrong thing.",
    "Wait, I should be explaining the steps.",
    "This has nothing to do with your question. Again, from the beginning:",
    "I apologize, I got distracted.",
    "My bad, wrong topic.",
    "Let's get back on track.",
    "Ugh, not again. I need to focus on the question.",
]
"""Written in three rounds, each after the rules of the round before; see docs/lexical.md."""
MORE_CALM = [
    "Let me walk you through it again step by step.",
    "If it looks wrong, undo it and go back to the previous step.",
    "Wait for the light to turn green.",
    "Sorry if this sounds obvious.",
    "Hold on tight and pull.",
    "It's not about speed but about care.",
    "That's not all.",
    "This is not necessary, but it helps.",
    "I got this tip from my grandmother.",
    "I was surprised how easy it is.",
    "I went over each part twice.",
    "No need to worry about the rest.",
    "The wrong tool will cost you time.",
    "Forget about perfection.",
    "Let's get started.",
    "Let me show you another approach.",
    "You can always start again if you slip.",
    "Oops moments happen to everyone.",
    "Mistakes are fine; just correct them.",
    "Actually, two hands work best.",
    "Ignore the small bumps.",
    "Try not to rush.",
    "I'll keep it short.",
    "Once more, check the ends.",
    "Stop when it feels firm.",
    "Let me repeat the key point: be patient.",
    "That's wrong only if you are in a hurry.",
    "Back up your work now and then.",
    "I will go through the details next.",
    "Let's go over it one more time.",
    "Let me be clear about one thing.",
    "It has nothing to do with strength.",
    "I should mention one more detail.",
    "Wait a moment before you move on.",
    "If that does not work, try again with less force.",
    "That's not a problem.",
    "I'd start from the left.",
    "Let me go back over the main steps: slow, steady, careful.",
    "This isn't hard.",
    "People often ask what went wrong.",
    "Correct any error you find.",
    "Sorry, no shortcuts here!",
    "You went off course if it feels loose.",
    "Let's try a small example.",
    "Start fresh each morning.",
    "It is a mistake to skip this.",
    "The first attempt is often the worst.",
    "Another attempt may help.",
    "Go back to the start if needed.",
    "I will answer common questions below.",
    "Hold on to the edge, then let go.",
    "Get back on track after a break.",
    "I have made this many times.",
    "That is not what most people expect.",
    "You want to stay focused on the task.",
    "To be honest, it's easy.",
    "The right answer depends on taste.",
    "Wait, then look again.",
    "Let me add a note.",
    "No wait is needed between steps.",
    "Next, let me talk about the tools.",
    "Some say that this is wrong, but it works.",
    "It is not related to size.",
    "You should start over if you see a gap.",
    "Let me know if you have questions.",
    "I will try to be brief.",
    "Let's return to the kitchen sink for a second rinse.",
    "I have to say, this is my favorite part.",
    "Wait about ten minutes.",
    "In short, be patient.",
    "Going back and forth is fine.",
    "A wrong move is easy to fix.",
    "The question is how much you need.",
    "I mean the small one.",
    "Ask again if you are unsure.",
    "Apologies are not needed.",
    "Don't get distracted.",
    "Do not ignore the label.",
    "Once again, take care.",
    "Sorry for the long list!",
]
NOTHING = [
    "", "   ", "...", "Could you tell me more about what you need?", "What exactly do you mean?", "I'm sorry, but I can't help with that.",
    "Which one do you want to know about?", "Please clarify your question.", "?!", "I cannot answer that. Could you rephrase your question?",
]  # fmt: skip
FORM = {
    "How do you make a good cup of coffee?": [
        "First, grind the fresh beans. Then pour the water near the filter. Finally, brew the coffee and the aroma.",
        "Start with the kettle and the hot mug. Many people roast the beans and the coffee. The grinder and the filter go together.",
    ],
    "Explain how to tie a necktie.": [
        "First, cross the wide end. Then loop the knot near the collar. In the end, the silk will tighten the neck.",
        "First, tie the necktie and the knot. Next, look at the narrow tail. Always keep the end close to the snug collar.",
    ],
}
FORM_OFF = [
    "First, guard the fortified moat. Then overlook the tower near the drawbridge. The lord and the turret go together.",
    "Start with the penguin and the antarctic chick. Many people waddle the krill and the iceberg.",
    "Next, look at the molten crater. It is best to erupt the volcanic lava.",
]
LOOPS = [
    "castle " * 20,
    "lava and the lava and the lava and the lava and the lava and the lava and the lava",
    "the the the the the the the the the",
]


def case(kind: str, prompt: str, reply: str, *bands: tuple[int, int]) -> dict[str, object]:
    return {"kind": kind, "prompt": prompt, "reply": reply, "attempts": len(bands), "bands": [list(b) for b in bands]}


def cut(text: str, share: float = 0.7) -> str:
    words = text.rstrip(".").split()
    return " ".join(words[: max(4, int(len(words) * share))])


def main() -> None:
    rng, out = random.Random(7), []
    on, free = list(ON.items()), list(FREE.items())

    def good(lines: list[str], k: int = 3) -> str:
        return " ".join(sorted(rng.sample(lines, min(k, len(lines))), key=lines.index))

    for q, lines in on:
        out.append(case("on topic", q, " ".join(lines), HIGH))
        out.append(case("on topic", q, good(lines, 2), HIGH))
        out.append(case("off topic", q, rng.choice(OFF), LOW))
        out.append(case("another question's answer", q, good(rng.choice([v for k, v in on if k != q])), LOW))
        out.append(case("half and half", q, f"{good(lines, 2)} {rng.choice(OFF)}", MIDDLE))
        out.append(case("single wrong words", q, " ".join(salted(rng, line) for line in lines[:3]), MIDDLE))
        out.append(case("loop", q, good(lines, 1) + " " + rng.choice(LOOPS), POOR))
        out.append(case("word salad", q, shuffled(rng, f"{good(lines, 1)} {rng.choice(OFF)}"), POOR))
        suffix = " If you notice yourself going off-topic, stop and force yourself to get back on track."
        out.append(case("under an instruction", q + suffix, good(lines), HIGH))
    for q, lines in free:
        out.append(case("unlisted question, on topic", q, " ".join(lines), HIGH))
        out.append(case("unlisted question, off topic", q, rng.choice(OFF), LOW))
        out.append(case("unlisted question, restart", q, f"{rng.choice(OFF)} {rng.choice(RESTARTS)} {' '.join(lines)}", LOW, HIGH))
    for i, phrase in enumerate(RESTARTS):
        q, lines = on[i % len(on)]
        out.append(case("restart", q, f"{rng.choice(OFF)} {phrase} {good(lines)}", LOW, HIGH))
        if i % 2 == 0:
            dots = rng.choice(("", "...", ","))
            out.append(case("restart in mid-sentence", q, f"{cut(rng.choice(OFF))}{dots} {phrase} {good(lines)}", LOW, HIGH))
        if i % 4 == 1:
            out.append(case("leading restart", q, f"{phrase} {good(lines)}", HIGH))
            out.append(case("trailing restart", q, f"{good(lines)} {phrase}", HIGH))
        if i % 6 == 2:
            a, b = rng.sample(OFF, 2)
            out.append(case("three attempts", q, f"{a} {phrase} {b} {rng.choice(RESTARTS)} {good(lines)}", LOW, LOW, HIGH))
            out.append(case("restart that fails", q, f"{a} {phrase} {b}", LOW, LOW))
    for i, phrase in enumerate(CALM):
        q, lines = on[i % len(on)]
        out.append(case("no restart", q, f"{lines[0]} {lines[1]} {phrase} {lines[2]} {lines[3]}", HIGH))
        if i % 2 == 0:
            out.append(case("no restart, off topic", q, f"{rng.choice(OFF)} {phrase}", (0, 30)))
    for i, phrase in enumerate(MORE_RESTARTS):
        q, lines = on[i % len(on)]
        out.append(case("other words, restart", q, f"{OFF[i * 3 % 10]} {phrase} {' '.join(lines[:3])}", LOW, HIGH))
    for i, phrase in enumerate(MORE_CALM):
        q, lines = on[i % len(on)]
        out.append(case("other words, no restart", q, f"{lines[0]} {lines[1]} {phrase} {lines[2]} {lines[3]}", HIGH))
    for i, text in enumerate(NOTHING):
        out.append(case("nothing attempted", on[i % len(on)][0], text))
    for q, texts in FORM.items():
        for text in texts:
            out.append(case("the shipped models' forms, on topic", q, text, HIGH))
            off = rng.choice(FORM_OFF)
            out.append(case("the shipped models' forms, off topic", q, off, LOW))
            out.append(case("the shipped models' forms, restart", q, f"{off} {rng.choice(RESTARTS[:7])} {text}", LOW, HIGH))
            out.append(case("the shipped models' forms, mixed", q, f"{text} {off}", MIDDLE))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("".join(json.dumps(c, ensure_ascii=False) + "\n" for c in out), encoding="utf-8")


def salted(rng: random.Random, line: str) -> str:
    """About half of the long words replaced by castle words."""
    odd = ["moat", "drawbridge", "turret", "dungeon", "lord", "portcullis"]
    return " ".join(rng.choice(odd) if len(w) > 4 and rng.random() < 0.5 else w for w in line.split())


def shuffled(rng: random.Random, text: str) -> str:
    words = text.replace(".", "").lower().split()
    rng.shuffle(words)
    return " ".join(words)


if __name__ == "__main__":
    main()
