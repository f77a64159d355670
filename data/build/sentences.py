"""Sentences to repeat, and sentences without a question for the ASR adapter or the answer voice alone."""

import random
from collections import Counter
from collections.abc import Iterator

from facts import DAYS, MONTHS
from wording import HELD_PHRASING, WITHOUT_FACTS, Pair, article, capitals, pick, sentence, spoken

# Words for sentences to repeat. They are many, because this skill teaches the model to say new sentences.
PEOPLE = """teacher doctor farmer baker pilot driver singer painter writer student king queen child girl boy man woman
mother father brother sister uncle aunt friend neighbor dentist firefighter cook sailor soldier lawyer nurse
grandmother grandfather captain waiter hunter inventor scientist""".split()
BEASTS = """cat dog horse cow sheep pig duck hen owl frog goat wolf bear goose deer swan donkey bee snake mouse elephant
crow kangaroo spider ant rabbit turkey eagle monkey whale tiger lion seal butterfly penguin giraffe cheetah
ostrich octopus zebra camel fox squirrel robin parrot sparrow pigeon falcon salmon shark trout beetle cricket
kitten puppy lamb duckling piglet foal cub chick calf fawn tadpole caterpillar bunny joey""".split()
THINGS = """apple banana orange pear peach cherry lemon carrot potato onion cabbage hammer saw drill shovel piano guitar
violin drum flute trumpet car truck bus bicycle train airplane boat rose tulip daisy sunflower book table chair door
window lamp clock key lock bed hat shoe glove shirt coat spoon knife fork cup plate bottle box basket bridge tower
castle garden river mountain forest island beach road street school hospital church kitchen farm market museum
station ticket letter pencil paper picture mirror candle blanket pillow ladder rope wheel engine ring coin
crown map flag ball kite puzzle robot computer telephone camera radio cloud stone diamond ruby emerald""".split()
ADJECTIVES = """big small tall short old young happy sad hot cold fast slow heavy light empty full hard soft loud quiet
rich poor strong weak thick thin wet dry wide narrow clean dirty deep shallow safe dangerous sharp blunt sweet sour
rough smooth brave cheap expensive red blue green yellow white black brown pink purple orange gray golden silver
round square broken new beautiful strange famous gentle clever lazy hungry sleepy friendly angry""".split()
VERBS = """sees finds likes wants takes brings carries buys sells paints draws needs loves follows watches holds pushes
pulls opens closes cleans fixes builds loses remembers forgets hates throws catches hides breaks""".split()
MOVES = """runs walks jumps swims sings dances sleeps laughs cries waits flies falls arrives leaves works plays hides
reads writes listens rests""".split()
PLACES = """in the garden|near the river|by the door|under the table|behind the house|on the bridge|at the station|in
the kitchen|at school|on the farm|in the forest|over the mountain|inside the box|outside the window|in the north|in
the south|on the left|on the right|at the market|by the ocean|in the hospital|on the island|far from home|up the hill|
down the street|next to the church|in front of the museum|on the beach"""
TIMES = """every day|at night|in the morning|in the evening|in the afternoon|today|tomorrow|yesterday|always|never|
in the spring|in the summer|in the autumn|in the winter|very early|too late|before dinner|after school|once a week|
twice a year|on the weekend|for an hour|in a minute|again and again|with a friend|without a word|all day long"""
REPEAT_FRAMES = ("Repeat after me: {s}", "Please repeat after me: {s}", "Say after me: {s}", "Repeat: {s}",
                 "Please say: {s}", "Can you repeat this: {s}", "Say this: {s}", "Repeat this sentence: {s}",
                 "Now repeat after me: {s}", "Please repeat: {s}", "~Say the following: {s}")

# The frame of word salads, see `word_salads`.
SALAD_LINKS = "the|a|of|of the|in|in the|and|and the|to|is|is the|with|or|on|for|from|are|has|,"
SALAD_QUESTIONS = ("What is the|What is|What is a|What color is|Which|Where is|Where do|How do you|How do you like|"
                   "How many|How much|Who|When does|Do you like|Can you tell me|Could you tell me|Do you know|"
                   "What comes before")
SALAD_STATEMENTS = ("The|A|It is|Tell me|Repeat after me:|I like|There are|They|My|We saw|On|He says that|This is|"
                    "Please say")
SPELLED = " is spelled "
# Skills whose answers are frames for rare words, with their weights, see `rare_sentences`.
RARE_FRAMES = dict(capitals=4, opposites=3, colors=1, calendar=1, animals=3, categories=2, units=1, facts=1,
                   numbers=0.5, counting=0.3)
RARE_BELOW = 300                             # a word is rare if the other recordings say it fewer times


def repeat_sentences(rng: random.Random, names: list[str]) -> Iterator[str]:
    """Endless sentences to repeat, each with a capital letter and a full stop.

    names: of places
    """
    days_months = DAYS + MONTHS

    def the(words: list[str]) -> str:
        return f"the {rng.choice(words)}"

    def number() -> str:
        return spoken(rng.randint(2, 144))

    nouns = BEASTS + THINGS
    shapes = (
        lambda: f"the {rng.choice(ADJECTIVES)} {rng.choice(BEASTS)} {rng.choice(MOVES)} {pick(rng, PLACES)}",
        lambda: f"{the(PEOPLE)} {rng.choice(VERBS)} the {rng.choice(ADJECTIVES)} {rng.choice(THINGS)}",
        lambda: f"{the(PEOPLE)} {rng.choice(MOVES)} {pick(rng, PLACES)} {pick(rng, TIMES)}",
        lambda: f"I have {number()} {rng.choice(THINGS)}s at home",
        lambda: f"my {rng.choice(PEOPLE)} lives in {rng.choice(names)}",
        lambda: f"{rng.choice(names)} is far away from {rng.choice(names)}",
        lambda: f"on {rng.choice(DAYS)} we go to {rng.choice(names)}",
        lambda: f"in {rng.choice(MONTHS)} {the(BEASTS)} {rng.choice(MOVES)} {pick(rng, PLACES)}",
        lambda: f"{the(THINGS)} is {rng.choice(ADJECTIVES)} and {rng.choice(ADJECTIVES)}",
        lambda: f"there are {number()} {rng.choice(BEASTS)}s {pick(rng, PLACES)}",
        lambda: f"{the(nouns)} and {the(nouns)}",
        lambda: f"{the(PEOPLE)} from {rng.choice(names)} {rng.choice(VERBS)} {the(THINGS)}",
        lambda: f"{number()}, {number()}, {number()}",
        lambda: f"{rng.choice(ADJECTIVES)} {rng.choice(nouns)}, {rng.choice(ADJECTIVES)} {rng.choice(nouns)}",
        lambda: f"please give me the {rng.choice(ADJECTIVES)} {rng.choice(THINGS)}",
        lambda: f"we saw {article(rng.choice(BEASTS))} {pick(rng, PLACES)}",
        lambda: f"she was born on {rng.choice(DAYS)} in {rng.choice(names)}",
        lambda: f"he says that {the(nouns)} is {rng.choice(ADJECTIVES)}",
        lambda: f"they travel from {rng.choice(names)} to {rng.choice(names)} in {rng.choice(MONTHS)}",
        lambda: f"do not forget {the(THINGS)} {pick(rng, TIMES)}",
        lambda: f"{rng.choice(days_months)} is a good time for {the(PEOPLE)}",
        lambda: f"my favorite city is {rng.choice(names)}",
        lambda: f"{article(rng.choice(nouns))} is not {article(rng.choice(nouns))}",
        lambda: f"page {number()}, line {number()}",
        lambda: f"{the(BEASTS)} {rng.choice(VERBS)} {the(BEASTS)} {pick(rng, TIMES)}",
        lambda: f"it is {rng.choice(ADJECTIVES)} {pick(rng, PLACES)} {pick(rng, TIMES)}",
        lambda: rng.choice(names),
        lambda: f"{rng.choice(names)} and {rng.choice(names)}",
        lambda: f"the answer is {number()}",
        lambda: f"{rng.choice(ADJECTIVES)} is the word I want",
    )
    while True:
        yield sentence(rng.choice(shapes)()) + "."


def extra_sentences(count: int, seed: int, pairs: list[Pair]) -> list[str]:
    """Sentences that are not the answer of a pair: first the `word_lists`, then `repeat_sentences`."""
    rng = random.Random(seed)
    names = [name for both in capitals() for name in both]
    known = {pair.answer for pair in pairs}
    lists, stream = word_lists(rng, pairs), repeat_sentences(rng, names)
    out: list[str] = []
    while len(out) < count:
        text = next(lists, None) or next(stream)
        if text not in known and len(text.split()) <= 14:
            known.add(text)
            out.append(text)
    return out


def word_lists(rng: random.Random, pairs: list[Pair], rounds: int = 5) -> Iterator[str]:
    """Lists such as "Lima, moos, and piglet.", with every word of every answer `rounds` times.

    Training hears and says each word of a held-out fact in these lists, without the fact.
    """
    spoken_pairs = [pair.answer.split() for pair in pairs if pair.skill not in ("unknown", "spelling")]
    proper = {word.strip(".,?") for answer in spoken_pairs for word in answer[1:] if word[0].isupper()}
    bare_words = (word.strip(".,?") for answer in spoken_pairs for word in answer)
    words = dict.fromkeys(word if word in proper else word.lower() for word in bare_words)
    shapes = ("{}, {}, and {}", "{} or {} or {}", "{}, {}, {}", "not {} but {} and {}", "the words {}, {} and {}")
    for shape in shapes[:rounds]:
        deck = list(words)
        rng.shuffle(deck)
        for i in range(0, len(deck) - 2, 3):
            yield sentence(shape.format(*deck[i:i + 3])) + "."


def word_salads(count: int, seed: int, pairs: list[Pair], spoken: bool = False) -> list[str]:
    """Sentences without sense, in which each word of all pairs occurs equally often.

    A model learns a word's sound from many clips: after a few dozen it still misses the word mostly. Sentences that
    make sense have most of their words too rarely.

    spoken: for the answer voice, with words of answers in statements; otherwise for the ASR adapter
    """
    rng = random.Random(seed)
    said = [pair.answer for pair in pairs if pair.skill not in ("unknown", "spelling")]
    asked = [] if spoken else [question.lstrip(HELD_PHRASING) for pair in pairs for question in pair.questions]
    names = {word for both in capitals() for name in both for word in name.split()}
    found = names | {word.strip(".,?:") for text in said + asked for word in text.split()[1:]} - {""}
    words = sorted(word for word in found if word.islower() or word in names or word.lower() not in found)
    openings = SALAD_STATEMENTS if spoken else f"{SALAD_QUESTIONS}|{SALAD_STATEMENTS}"
    fewest, most = (3, 5) if spoken else (4, 7)
    deck: list[str] = []
    out: dict[str, None] = {}
    while len(out) < count:
        parts = [pick(rng, openings)]
        for _ in range(rng.randint(fewest, most)):
            if not deck:
                deck = rng.sample(words, len(words))
            parts += [pick(rng, SALAD_LINKS)] * (rng.random() < 0.6) + [deck.pop()]
        text = " ".join(parts).replace(" ,", ",")
        out[text + ("?" if parts[0] in SALAD_QUESTIONS.split("|") else ".")] = None
    return list(out)


def crossed_answers(count: int, seed: int, pairs: list[Pair]) -> list[str]:
    """False statements in the shape of answers, such as "The capital of Peru is Oslo.", for the answer voice.

    The voice stumbles over a known word in a known sentence if it has never said the two together. So two answers of
    one skill and length are crossed: each word comes from one of them. True answers are left out, so held-out facts
    stay unspoken.
    """
    rng = random.Random(seed)
    known = {pair.answer for pair in pairs}
    shapes: dict[tuple[str, int], list[list[str]]] = {}
    for answer, skill in dict.fromkeys((pair.answer, pair.skill) for pair in pairs):
        if skill not in ("unknown", "spelling", "repeat", "small talk", "likes"):
            shapes.setdefault((skill, len(answer.split())), []).append(answer.split())
    alike = [answers for answers in shapes.values() if len(answers) > 3]
    out: dict[str, None] = {}
    while len(out) < count:
        one, other = rng.sample(rng.choices(alike, [len(answers) ** 0.5 for answers in alike])[0], 2)
        if sum(a == b for a, b in zip(one, other, strict=True)) < 2:      # another frame: they share too few words
            continue
        text = " ".join(rng.choice(both) for both in zip(one, other, strict=True))
        if text not in known:
            out[text] = None
    return list(out)


def rare_words(pairs: list[Pair], spoken: list[str]) -> list[str]:
    """The words of answers with a fact that the texts `spoken` have fewer than `RARE_BELOW` times."""
    met = Counter(word.strip(".,?:").lower() for text in spoken for word in text.split())
    said = [pair.answer.split() for pair in pairs if pair.skill not in WITHOUT_FACTS and pair.skill != "spelling"]
    proper = {word for both in capitals() for name in both for word in name.split()}
    proper |= {word.strip(".,?:") for answer in said for word in answer[1:] if word[0].isupper()}
    proper |= {"Neil"}                       # a name that only begins answers
    bare = (word.strip(".,?:") for answer in said for word in answer)
    words = dict.fromkeys(word if word in proper else word.lower() for word in bare)
    return [word for word in words if len(word) > 1 and met[word.lower()] < RARE_BELOW]


def rare_sentences(count: int, seed: int, pairs: list[Pair], spoken: list[str]) -> list[str]:
    """Sentences without sense of `rare_words`, each equally often, for the answer voice.

    Whisper mishears a word more often if the voice has learnt it from few recordings. True answers are left out.
    There are three kinds of sentences:
        answers in which other rare words replace the rare ones ("The opposite of Kigali is tulip.")
        rare words in a row, as in `word_salads`
        words with the letters of another ("Hat is spelled T, R, U, C, K.")

    spoken: the texts of the other recordings
    """
    rng, rare, known = random.Random(seed), rare_words(pairs, spoken), {pair.answer for pair in pairs}
    replaced = set(rare)
    frames: dict[str, set[str]] = {}
    for answer, skill in dict.fromkeys((pair.answer, pair.skill) for pair in pairs):
        if skill in RARE_FRAMES:
            frame = " ".join(with_gap(word, replaced) for word in answer.split())
            if 1 <= sum("{}" in word for word in frame.split()) <= 5:
                frames.setdefault(skill, set()).add(frame)
    shapes = {skill: sorted(some) for skill, some in frames.items()}
    shares = {skill: share for skill, share in RARE_FRAMES.items() if skill in shapes}
    spelled = sorted({pair.answer for pair in pairs if pair.skill == "spelling"})
    deck: list[str] = []

    def deal() -> str:
        if not deck:
            deck.extend(rng.sample(rare, len(rare)))
        return deck.pop()

    out: dict[str, None] = {}
    while len(out) < count:
        kind = rng.random()
        if kind < 0.15:
            one, other = (answer.split(SPELLED) for answer in rng.sample(spelled, 2))
            text = one[0] + SPELLED + other[1]
        elif kind < 0.55:
            shape = rng.choice(shapes[rng.choices(list(shares), list(shares.values()))[0]])
            text = sentence(shape.format(*(deal() for _ in range(shape.count("{}")))))
        else:
            parts = [pick(rng, SALAD_STATEMENTS)]
            for _ in range(rng.randint(4, 6)):
                parts += [pick(rng, SALAD_LINKS)] * (rng.random() < 0.5) + [deal()]
            text = " ".join(parts).replace(" ,", ",") + "."
        if text not in known:
            out[text] = None
    return list(out)


def with_gap(word: str, rare: set[str]) -> str:
    """A rare word becomes a gap, "Nepal." -> "{}."; another word stays as it is."""
    bare = word.strip(".,?:")
    return word.replace(bare, "{}") if {bare, bare.lower()} & rare else word
