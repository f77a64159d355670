"""Every question and answer of VoiceAssistant-lite, made from tables and phrasings.

One `Pair` is a fact (or a sentence to repeat) with its one right answer; it has several
phrasings of the question. A phrasing that starts with "~" is held out: it is in no training
text and no training sound, and tests whether the model understands other wordings.

Facts were checked against general reference works; the texts are this project's own (MIT).
"""

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

HELD_PHRASING = "~"
# Plurals that the sentences to repeat would get wrong ("wolfs"): such sentences are left out.
WRONG_PLURAL = re.compile(r"\b(?:wolf|calf|knife|sheep|deer|salmon|trout|goose|mouse|potato|\w+(?:[sx]|ch|sh)|"
                          r"\w*[^aeiou ]y)s\b")
WHOLE = ("small talk", "likes", "unknown", "arithmetic", "calendar", "counting", "numbers")
UNCLEAR = Path(__file__).with_name("unclear.txt")   # one answer a line, written by `build.py answers`


@dataclass
class Pair:
    """One answer and all the ways to ask for it.

    fact: what is known, shared by both directions (capital <-> country); a fact that is
        held out is held out in every direction
    """

    skill: str
    fact: str
    answer: str
    questions: list[str] = field(default_factory=list)


ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen").split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()


def spoken(n: int) -> str:
    """A number below 1000 in words: 144 -> "one hundred forty-four"."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f"-{ONES[n % 10]}" if n % 10 else "")
    rest = n % 100
    return f"{ONES[n // 100]} hundred" + (f" {spoken(rest)}" if rest else "")


def sentence(text: str) -> str:
    """First letter upper case."""
    return text[0].upper() + text[1:]


def article(noun: str) -> str:
    """"an owl", "a cat"."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def lower(text: str) -> str:
    """First letter lower case, as within a sentence; names and "I" stay as they are."""
    return text if text.split()[0].strip(",.?") in names() else text[0].lower() + text[1:]


@cache
def names() -> frozenset[str]:
    """Words that begin with a capital wherever they stand."""
    places = {word for both in capitals() for name in both for word in name.split()}
    kinds = {name for line in CATEGORIES.split("\n") for name in line.split(":")[1].split() if name[0].isupper()}
    return frozenset(places | kinds | {*DAYS, *MONTHS, "I"})


# Ways to ask for anything that can be said as "what ... is": {q} is the bare question,
# {n} the same as a noun phrase ("the capital of France").
NOUN_FRAMES = (
    "What is {n}?",
    "What's {n}?",
    "Tell me {n}.",
    "Please tell me {n}.",
    "Can you tell me {n}?",
    "Could you tell me {n}, please?",
    "Do you know {n}?",
    "I would like to know {n}.",
    "Hey, what is {n}?",
    "Say {n}.",
    "Do you happen to know {n}?",
    "Okay, what is {n}?",
    "~I want to know {n}.",
    "~Please say what {n} is.",
)

# More frames, of the written questions and of some clips only: see `more_phrasings`.
MORE_NOUN_FRAMES = (
    "Give me {n}.",
    "Let me know {n}.",
    "What would {n} be?",
    "{N}, please.",
    "{N}?",
    "How about {n}?",
    "I need {n}.",
    "What do you think {n} is?",
    "Can you say what {n} is?",
    "I wonder what {n} is.",
    "Remind me what {n} is.",
    "Could you explain what {n} is?",
    "I have to find out {n}.",
    "Let us see, what is {n}?",
)
OPENERS = ("Please, {q}", "Excuse me, {q}", "Okay, {q}", "Omni, {q}", "Hello, {q}", "I have a question: {q}", "Well, {q}",
           "So, {q}", "Now, {q}", "Listen: {q}", "My question is: {q}", "One more question: {q}", "And {q}", "Hi, {q}",
           "Hey Omni, {q}", "Sorry, {q}", "Good morning, {q}", "Just a quick question: {q}")
CLOSERS = ("please", "Omni", "if you can", "my friend")                     # of a request
QUESTION_CLOSERS = (*CLOSERS, "if I may ask", "do you know", "can you say")

# --- the tables ---------------------------------------------------------------------------

CAPITALS = """Argentina:Buenos Aires Australia:Canberra Austria:Vienna Belgium:Brussels Bolivia:Sucre
Brazil:Brasilia Bulgaria:Sofia Cambodia:Phnom Penh Canada:Ottawa Chile:Santiago China:Beijing
Colombia:Bogota Croatia:Zagreb Cuba:Havana Cyprus:Nicosia Denmark:Copenhagen Ecuador:Quito Egypt:Cairo
Ethiopia:Addis Ababa Finland:Helsinki France:Paris Germany:Berlin Ghana:Accra Greece:Athens
Hungary:Budapest Iceland:Reykjavik India:New Delhi Indonesia:Jakarta Iran:Tehran Iraq:Baghdad
Ireland:Dublin Israel:Jerusalem Italy:Rome Jamaica:Kingston Japan:Tokyo Jordan:Amman Kenya:Nairobi
Lebanon:Beirut Malaysia:Kuala Lumpur Mexico:Mexico City Mongolia:Ulaanbaatar Morocco:Rabat Nepal:Kathmandu
New Zealand:Wellington Nigeria:Abuja North Korea:Pyongyang Norway:Oslo Pakistan:Islamabad Peru:Lima
Poland:Warsaw Portugal:Lisbon Romania:Bucharest Russia:Moscow Senegal:Dakar Serbia:Belgrade
South Korea:Seoul Spain:Madrid Sudan:Khartoum Sweden:Stockholm Switzerland:Bern Thailand:Bangkok
Tunisia:Tunis Turkey:Ankara Uganda:Kampala Ukraine:Kyiv Uruguay:Montevideo Venezuela:Caracas
Vietnam:Hanoi Zambia:Lusaka Zimbabwe:Harare Afghanistan:Kabul Algeria:Algiers Albania:Tirana Angola:Luanda
Armenia:Yerevan Bangladesh:Dhaka Barbados:Bridgetown Estonia:Tallinn Guatemala:Guatemala City Kuwait:Kuwait City
Latvia:Riga Libya:Tripoli Lithuania:Vilnius Malta:Valletta Namibia:Windhoek Nicaragua:Managua Panama:Panama City
Qatar:Doha Rwanda:Kigali Slovakia:Bratislava Syria:Damascus"""

OPPOSITES = """hot:cold big:small tall:short fast:slow old:young happy:sad open:closed light:heavy
early:late full:empty hard:soft high:low loud:quiet rich:poor strong:weak thick:thin wet:dry
wide:narrow clean:dirty deep:shallow easy:difficult near:far left:right up:down inside:outside
day:night true:false first:last black:white begin:end buy:sell give:take push:pull win:lose
love:hate laugh:cry north:south east:west summer:winter front:back over:under good:bad
safe:dangerous sharp:blunt sweet:sour rough:smooth brave:afraid cheap:expensive friend:enemy
always:never many:few more:less question:answer remember:forget arrive:leave"""

COLOURS = """the sky:blue|grass:green|snow:white|coal:black|a banana:yellow|a strawberry:red|a carrot:orange
|a lemon:yellow|milk:white|blood:red|a ripe tomato:red|chocolate:brown|a polar bear:white|a crow:black
|a flamingo:pink|an eggplant:purple|a cucumber:green|the sun:yellow|a pumpkin:orange|a frog:green
|a fire truck:red|an elephant:gray|the ocean:blue|a lime:green|salt:white|a cherry:red|broccoli:green
|a stop sign:red|honey:gold|a swan:white|a raven:black|spinach:green|sand:yellow|a pig:pink|a peach:orange
|rice:white|a blueberry:blue|an emerald:green|a ruby:red|a sapphire:blue|charcoal:black|a cloud:white"""

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November "
          "December").split()
MONTH_DAYS = dict(zip(MONTHS, (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), strict=True))

# animal:sound (as a verb):legs:young
ANIMALS = """cow:moos:4:calf cat:meows:4:kitten dog:barks:4:puppy sheep:bleats:4:lamb duck:quacks:2:duckling
pig:grunts:4:piglet horse:neighs:4:foal lion:roars:4:cub hen:clucks:2:chick owl:hoots:2:owlet
frog:croaks:4:tadpole goat:bleats:4:kid wolf:howls:4:pup bear:growls:4:cub goose:honks:2:gosling
deer:grunts:4:fawn swan:hisses:2:cygnet donkey:brays:4:foal bee:buzzes:6:larva snake:hisses:0:snakelet
mouse:squeaks:4:pup elephant:trumpets:4:calf crow:caws:2:chick kangaroo:clicks:2:joey
spider:-:8:spiderling ant:-:6:larva rabbit:squeaks:4:bunny turkey:gobbles:2:poult eagle:screams:2:eaglet
monkey:chatters:2:infant whale:sings:0:calf tiger:roars:4:cub seal:barks:0:pup butterfly:-:6:caterpillar
penguin:-:2:chick giraffe:hums:4:calf"""

CATEGORIES = """fruit:apple banana orange grape pear peach cherry plum mango lemon pineapple melon
vegetable:carrot potato onion cabbage spinach cucumber pea lettuce radish turnip
animal:horse tiger rabbit monkey zebra camel fox squirrel
bird:robin eagle parrot owl sparrow pigeon falcon penguin
fish:salmon shark tuna trout cod herring
insect:bee ant beetle butterfly mosquito cricket
tool:hammer saw drill wrench screwdriver shovel
instrument:piano guitar violin drum flute trumpet cello
vehicle:car truck bus bicycle train airplane boat
flower:rose tulip daisy lily sunflower orchid
tree:oak pine maple birch willow cedar
metal:gold silver iron copper tin zinc
sport:tennis football hockey golf baseball swimming
planet:Mars Venus Jupiter Saturn Neptune Mercury
color:red blue green yellow purple pink
shape:circle square triangle rectangle oval
drink:water milk coffee tea juice
season:spring summer autumn winter
language:English Spanish French German Chinese Japanese
month:January April June October
country:France Brazil Kenya Japan Canada Egypt"""
UNCOUNTED = set(("gold silver iron copper tin zinc tennis football hockey golf baseball swimming water milk "
                 "coffee tea juice red blue green yellow purple pink spring summer autumn winter").split())

# (question as "how many A are in B", number, A, B)
UNITS = """minutes:an hour:60|seconds:a minute:60|hours:a day:24|days:a week:7|months:a year:12|weeks:a year:52
|years:a century:100|years:a decade:10|inches:a foot:12|feet:a yard:3|centimeters:a meter:100
|millimeters:a centimeter:10|decades:a century:10|seasons:a year:4|days:a weekend:2|ounces:a pound:16
|quarts:a gallon:4|cups:a pint:2|pints:a quart:2|items:a dozen:12|cents:a dollar:100|hours:half a day:12
|minutes:half an hour:30|months:half a year:6|seconds:half a minute:30|days:two weeks:14|hours:two days:48
|minutes:two hours:120|months:two years:24|inches:a yard:36|minutes:a quarter of an hour:15
|months:a quarter of a year:3|degrees:a right angle:90|eggs:two dozen:24|years:half a century:50
|sides:a triangle:3|sides:a square:4|sides:a hexagon:6|letters:the alphabet:26|cards:a full deck:52
|strings:a violin:4|players:a soccer team:11|planets:the solar system:8|colors:a rainbow:7"""

# Checked facts. question phrasings : answer
FACTS = """Who wrote Hamlet?/Who is the author of Hamlet?/Which writer wrote Hamlet?=Shakespeare wrote Hamlet.
Who painted the Mona Lisa?/Which painter painted the Mona Lisa?/The Mona Lisa was painted by whom?=Leonardo da Vinci painted the Mona Lisa.
What is the largest planet?/Which planet is the largest?/Name the biggest planet.=Jupiter is the largest planet.
What is the smallest planet?/Which planet is the smallest?/Name the smallest planet.=Mercury is the smallest planet.
Which planet is closest to the sun?/What planet is nearest to the sun?/Name the planet nearest the sun.=Mercury is closest to the sun.
Which planet is called the red planet?/What is the red planet?/Name the red planet.=Mars is called the red planet.
Which planet has the biggest rings?/What planet is famous for its rings?/Name the planet with big rings.=Saturn has the biggest rings.
What is the longest river in Africa?/Which river is the longest in Africa?/Name the longest river in Africa.=The Nile is the longest river in Africa.
What is the highest mountain?/Which mountain is the highest on earth?/Name the highest mountain.=Mount Everest is the highest mountain.
What is the largest ocean?/Which ocean is the largest?/Name the biggest ocean.=The Pacific is the largest ocean.
What is the largest animal?/Which animal is the largest of all?/Name the biggest animal.=The blue whale is the largest animal.
What is the fastest land animal?/Which animal runs the fastest?/Name the fastest animal on land.=The cheetah is the fastest land animal.
What is the tallest animal?/Which animal is the tallest?/Name the tallest animal.=The giraffe is the tallest animal.
What is the largest bird?/Which bird is the largest?/Name the biggest bird.=The ostrich is the largest bird.
What do bees make?/Which food do bees make?/Tell me what bees make.=Bees make honey.
What do cows drink?/What does a cow drink?/Tell me what cows drink.=Cows drink water.
Where do fish live?/Where does a fish live?/Tell me where fish live.=Fish live in water.
What do plants need to grow?/What does a plant need to grow?/Tell me what plants need to grow.=Plants need light and water to grow.
What is frozen water called?/What do we call frozen water?/Tell me the name of frozen water.=Frozen water is called ice.
At what temperature does water boil?/When does water boil?/How hot must water be to boil?=Water boils at one hundred degrees.
At what temperature does water freeze?/When does water freeze?/How cold must water be to freeze?=Water freezes at zero degrees.
How many continents are there?/What is the number of continents?/Tell me how many continents there are.=There are seven continents.
How many oceans are there?/What is the number of oceans?/Tell me how many oceans there are.=There are five oceans.
What is the largest continent?/Which continent is the largest?/Name the biggest continent.=Asia is the largest continent.
What is the largest country?/Which country is the largest?/Name the biggest country.=Russia is the largest country.
What is the smallest country?/Which country is the smallest?/Name the smallest country.=Vatican City is the smallest country.
What gas do we breathe?/Which gas do people need to breathe?/Tell me which gas we breathe.=We breathe oxygen.
What is the center of an atom called?/What do we call the center of an atom?/Name the center of an atom.=The center of an atom is the nucleus.
Who invented the telephone?/Which inventor made the telephone?/Tell me who invented the telephone.=Alexander Graham Bell invented the telephone.
Who was the first person on the moon?/Who first walked on the moon?/Name the first person on the moon.=Neil Armstrong was the first person on the moon.
Who discovered gravity?/Which scientist described gravity?/Tell me who discovered gravity.=Isaac Newton described gravity.
What is the hardest natural material?/Which natural material is the hardest?/Name the hardest natural material.=Diamond is the hardest natural material.
What do we use to tell time?/Which thing tells the time?/Tell me what shows the time.=A clock tells the time.
What do we use to cut paper?/Which tool cuts paper?/Tell me what cuts paper.=Scissors cut paper.
What do you use to write?/Which thing do people write with?/Tell me what people write with.=People write with a pen.
What do people read?/Which thing do people read?/Tell me what people read.=People read books.
Where do we see with?/What do we see with?/Which part of the body sees?=We see with our eyes.
What do we hear with?/Which part of the body hears?/Tell me what we hear with.=We hear with our ears.
What do we smell with?/Which part of the body smells?/Tell me what we smell with.=We smell with our nose.
What do we taste with?/Which part of the body tastes?/Tell me what we taste with.=We taste with our tongue.
What pumps blood?/Which organ pumps blood?/Tell me what pumps our blood.=The heart pumps blood.
What do we think with?/Which organ thinks?/Tell me what we think with.=We think with our brain.
Where does a teacher work?/Where do teachers work?/Tell me where a teacher works.=A teacher works in a school.
Where does a doctor work?/Where do doctors work?/Tell me where a doctor works.=A doctor works in a hospital.
Where does a farmer work?/Where do farmers work?/Tell me where a farmer works.=A farmer works on a farm.
Where does a cook work?/Where do cooks work?/Tell me where a cook works.=A cook works in a kitchen.
Who flies an airplane?/Which person flies an airplane?/Tell me who flies an airplane.=A pilot flies an airplane.
Who bakes bread?/Which person bakes bread?/Tell me who bakes bread.=A baker bakes bread.
Who puts out fires?/Which person puts out fires?/Tell me who puts out fires.=A firefighter puts out fires.
Who fixes teeth?/Which doctor fixes teeth?/Tell me who fixes teeth.=A dentist fixes teeth.
Who drives a bus?/Which person drives a bus?/Tell me who drives a bus.=A driver drives a bus.
What do we wear on our feet?/Which things go on our feet?/Tell me what we wear on our feet.=We wear shoes on our feet.
What do we wear on our hands?/Which things go on our hands?/Tell me what we wear on our hands.=We wear gloves on our hands.
What do we wear on our head?/Which thing goes on the head?/Tell me what we wear on our head.=We wear a hat on our head.
What opens a lock?/Which thing opens a lock?/Tell me what opens a lock.=A key opens a lock.
Where do we sleep?/Which place do we sleep in?/Tell me where we sleep.=We sleep in a bed.
What shines at night?/Which thing shines in the night sky?/Tell me what shines at night.=The moon shines at night.
What falls from clouds?/Which thing falls from clouds?/Tell me what falls from clouds.=Rain falls from clouds.
What is bread made of?/Which thing is bread made from?/Tell me what bread is made of.=Bread is made of flour.
What is cheese made of?/Which thing is cheese made from?/Tell me what cheese is made of.=Cheese is made of milk.
What is paper made of?/Which thing is paper made from?/Tell me what paper is made of.=Paper is made of wood.
What is glass made of?/Which thing is glass made from?/Tell me what glass is made of.=Glass is made of sand.
What is wine made of?/Which fruit is wine made from?/Tell me what wine is made of.=Wine is made of grapes.
What do caterpillars become?/What does a caterpillar become?/Tell me what caterpillars become.=Caterpillars become butterflies.
In which direction does the sun rise?/Where does the sun rise?/Tell me where the sun rises.=The sun rises in the east.
In which direction does the sun set?/Where does the sun set?/Tell me where the sun sets.=The sun sets in the west.
Which language do people speak in Brazil?/What do people speak in Brazil?/Name the language of Brazil.=People speak Portuguese in Brazil.
Which language do people speak in Mexico?/What do people speak in Mexico?/Name the language of Mexico.=People speak Spanish in Mexico.
Which language do people speak in Austria?/What do people speak in Austria?/Name the language of Austria.=People speak German in Austria.
Which language do people speak in Egypt?/What do people speak in Egypt?/Name the language of Egypt.=People speak Arabic in Egypt.
What money do people use in Japan?/Which money is used in Japan?/Name the money of Japan.=People use the yen in Japan.
What money do people use in India?/Which money is used in India?/Name the money of India.=People use the rupee in India.
What money do people use in Germany?/Which money is used in Germany?/Name the money of Germany.=People use the euro in Germany.
On which continent is Egypt?/Where is Egypt?/Tell me the continent of Egypt.=Egypt is in Africa.
On which continent is Brazil?/Where is Brazil?/Tell me the continent of Brazil.=Brazil is in South America.
On which continent is Canada?/Where is Canada?/Tell me the continent of Canada.=Canada is in North America.
On which continent is Japan?/Where is Japan?/Tell me the continent of Japan.=Japan is in Asia.
On which continent is Spain?/Where is Spain?/Tell me the continent of Spain.=Spain is in Europe.
On which continent is Kenya?/Where is Kenya?/Tell me the continent of Kenya.=Kenya is in Africa.
How many fingers do you have on one hand?/How many fingers are on a hand?/Tell me how many fingers a hand has.=A hand has five fingers.
How many wheels does a bicycle have?/How many wheels are on a bicycle?/Tell me how many wheels a bicycle has.=A bicycle has two wheels.
How many wheels does a car have?/How many wheels are on a car?/Tell me how many wheels a car has.=A car has four wheels.
How many keys does a piano have?/How many keys are on a piano?/Tell me how many keys a piano has.=A piano has eighty-eight keys.
How many hearts does an octopus have?/How many hearts are in an octopus?/Tell me how many hearts an octopus has.=An octopus has three hearts.
How many arms does an octopus have?/How many arms are on an octopus?/Tell me how many arms an octopus has.=An octopus has eight arms.
How many moons does the earth have?/How many moons are around the earth?/Tell me how many moons the earth has.=The earth has one moon.
What comes after spring?/Which season follows spring?/Tell me the season after spring.=Summer comes after spring.
What comes after summer?/Which season follows summer?/Tell me the season after summer.=Autumn comes after summer.
What comes after autumn?/Which season follows autumn?/Tell me the season after autumn.=Winter comes after autumn.
What comes after winter?/Which season follows winter?/Tell me the season after winter.=Spring comes after winter.
What do you get when you mix blue and yellow?/Which color do blue and yellow make?/Mix blue and yellow.=Blue and yellow make green.
What do you get when you mix red and yellow?/Which color do red and yellow make?/Mix red and yellow.=Red and yellow make orange.
What do you get when you mix red and blue?/Which color do red and blue make?/Mix red and blue.=Red and blue make purple.
What do you get when you mix red and white?/Which color do red and white make?/Mix red and white.=Red and white make pink.
What do you get when you mix black and white?/Which color do black and white make?/Mix black and white.=Black and white make gray."""

SMALL_TALK = {
    "name": ("My name is Omni.", "What is your name?|Who are you?|What are you called?|Tell me your name.|"
             "May I ask your name?|What should I call you?|Can you tell me your name?|What's your name?|"
             "Do you have a name?|Please tell me who you are.|~Could I know your name?"),
    "maker": ("Students and teachers made me.", "Who made you?|Who built you?|Who created you?|"
              "Where do you come from?|Tell me who made you.|Who is your maker?|Who trained you?|"
              "By whom were you made?|~Who are the people that made you?"),
    "mood": ("I am feeling great today.", "How are you?|How are you feeling today?|How do you feel?|"
             "How are you doing?|Are you feeling well?|How is it going?|How are you today?|Are you happy?|"
             "Are you okay?|How do you do?|How have you been?|~How do you feel today?"),
    "hobbies": ("I like listening to people and learning new words.", "What are your hobbies?|"
                "What do you like to do?|What do you do for fun?|Do you have any hobbies?|What do you enjoy?|"
                "How do you spend your free time?|Tell me about your hobbies.|What do you like doing?|"
                "What is your favorite hobby?|~What do you do in your spare time?"),
    "weather": ("I cannot see outside, but I hope the sun is shining.", "What is the weather like today?|"
                "How is the weather?|What's the weather like?|Is it raining?|Is it sunny today?|"
                "Will it rain today?|Tell me about the weather.|What is the weather today?|"
                "How is the weather today?|Is it cold outside?|~What is it like outside today?"),
    "hear": ("Yes, I can hear you well.", "Can you hear me?|Do you hear me?|Are you listening?|Can you hear my voice?|"
             "Is this thing on?|Can you understand me?|Are you there?|Hello, can you hear me?|~Am I loud enough?"),
    "joke": ("Why was six afraid of seven? Because seven ate nine.", "Tell me a joke.|Can you tell me a joke?|"
             "Do you know a joke?|Say something funny.|Make me laugh.|I want to hear a joke.|"
             "Please tell me something funny.|Do you know any jokes?|~Could you tell a joke?"),
    "hello": ("Hello, it is nice to meet you.", "Hello.|Hi.|Hello there.|Hi there.|Good morning.|Hey.|Good afternoon.|"
              "Good evening.|Nice to meet you.|Greetings.|Hello, Omni.|Hi, Omni.|~Good day."),
    "thanks": ("You are very welcome.", "Thank you.|Thanks.|Thank you very much.|Thanks a lot.|Thank you so much.|"
               "Many thanks.|Thanks for your help.|Thank you for helping me.|~I thank you."),
    "goodbye": ("Goodbye, and have a wonderful day.", "Goodbye.|Bye.|See you later.|Good night.|Bye bye.|"
                "I have to go now.|See you tomorrow.|Talk to you later.|See you soon.|~So long."),
    "age": ("I am very young, I was trained this year.", "How old are you?|What is your age?|When were you born?|"
            "Tell me how old you are.|When is your birthday?|~Are you old?"),
    "help": ("I can answer short questions and repeat sentences.", "What can you do?|How can you help me?|"
             "What do you know?|What are you able to do?|Can you help me?|I need help.|Help me, please.|"
             "What can I ask you?|~Tell me what you can do."),
    "robot": ("I am a small language model that can talk.", "Are you a robot?|Are you human?|What are you?|"
              "Are you a person?|Are you a machine?|Are you real?|Are you a computer?|~Are you alive?"),
    "place": ("I live inside your computer.", "Where are you?|Where do you live?|Where is your home?|"
              "Tell me where you live.|Where are you now?|~Which place do you live in?"),
    "language": ("I speak English.", "Which language do you speak?|What languages do you speak?|Do you speak English?|"
                 "Can you speak English?|Do you speak French?|~Which languages do you know?"),
    "sing": ("I cannot sing, but I can count for you.", "Can you sing?|Sing a song.|Please sing for me.|"
             "Sing me a song.|Do you like to sing?|~Would you sing for me?"),
    "eat": ("I do not eat, I only need electricity.", "What do you eat?|Are you hungry?|Do you eat?|"
            "What is your favorite food?|What did you have for breakfast?|~Do you need food?"),
    "sleep": ("I never sleep, I am always ready.", "Do you sleep?|Are you tired?|When do you sleep?|"
              "Did you sleep well?|Do you need sleep?|~Do you ever sleep?"),
    "love": ("I like you too.", "I like you.|I love you.|You are nice.|You are great.|You are my friend.|"
             "Do you like me?|~Are we friends?"),
    "sorry": ("That is no problem at all.", "I am sorry.|Sorry.|Excuse me.|Sorry about that.|Please forgive me.|"
              "~I apologize."),
    "color": ("My favorite color is blue.", "What is your favorite color?|Which color do you like best?|"
              "Tell me your favorite color.|Do you have a favorite color?|~Which color do you like?"),
    "number": ("My favorite number is seven.", "What is your favorite number?|Which number do you like best?|"
               "Tell me your favorite number.|Do you have a favorite number?|~Which number do you like?"),
}

LIKES = """Paris London Beijing New York Rome Tokyo Berlin Moscow Madrid Vienna music chocolate pizza coffee tea cats
dogs books flowers football tennis summer winter rain snow the ocean the mountains swimming dancing singing
reading apples bananas honey bread cheese rice soup cake horses birds fish trees China France Italy Japan
school games movies jokes history science math numbers poems robots computers ice cream""".replace(
    "New York", "New_York").replace("the ocean", "the_ocean").replace("the mountains", "the_mountains").replace(
    "ice cream", "ice_cream")

SPELL = """cat dog sun map cup hat bed pen box egg fish bird tree book door milk rain snow star moon hand foot
ship road lamp ball cake bear lion frog king ring song wind gold blue green red pink black white water
house mouse horse apple bread chair table plant river stone cloud night light music paper spoon knife fruit
lemon grape tiger zebra pizza happy smile heart world earth ocean beach train truck robot clock shirt shoes
queen dream sugar seven eight three hello money green brown sleep storm uncle woman child under jump play"""

# Questions that none of the skills can answer. {x} is filled from UNKNOWN_THINGS.
UNKNOWN_FRAMES = (
    "How do I fix my {x}?", "Where can I buy a new {x}?", "How much does a {x} cost?",
    "Who will win the {x} this year?", "What happened to my {x}?", "Can you order me a {x}?",
    "Where did I put my {x}?", "Why is my {x} so slow?", "How do you build a {x}?", "Who broke the {x}?",
    "When will my {x} arrive?", "How old is the {x}?", "Please turn off the {x}.", "How far away is the {x}?",
    "What is wrong with the {x}?", "How long does it take to learn the {x}?", "Who owns the {x}?",
    "~Should I sell my {x}?",
)
UNKNOWN_THINGS = """car bicycle computer phone house television radio window bridge garden ticket package camera
printer race election game match piano guitar boat airport station museum tower castle church train engine
kitchen roof fence key wallet umbrella jacket watch battery recipe medicine contract tax stock market law""".split()
UNKNOWN_OTHER = """What time is it?|What time is it now?|What day is it today?|What is the date today?|Who is the president?|
What is the meaning of life?|Play some music.|Set an alarm.|Call my mother.|Send a message to my friend.|
What is the news today?|How do I get to the station?|Where is the nearest hospital?|What should I cook tonight?|
Why do people dream?|How does a computer work?|What happened in the war?|Who won the game last night?|
Why is the sea salty?|How do magnets work?|When does the train leave?|Where is my brother?|What did she say?|
How tall is the tower?|Who is that man?|Why did he leave?|When will they come back?|What is inside the box?|
Translate this into French.|Write me a poem.|Explain quantum physics.|What is love?|Is there life on other planets?|
How many people live in London?|Who was your teacher?|What will happen tomorrow?|Should I take the job?|
Which movie should I watch?|How do I lose weight?|What is my name?|Do you know where I live?|What did I do yesterday?|
Book a table for two.|Open the window.|Turn on the lights.|How high can a bird fly?|Why do cats purr?|
What is the price of gold?|Which phone is the best?|Can you drive a car?|Who invented money?|Where were you last night?"""

# --- repeat after me ----------------------------------------------------------------------
# At least 400 words over many sentence shapes: this skill teaches to say what was never said.
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
TIMES = """every day|at night|in the morning|in the evening|in the afternoon|today|tomorrow|yesterday|always|never|in the
spring|in the summer|in the autumn|in the winter|very early|too late|before dinner|after school|once a week|twice a
year|on the weekend|for an hour|in a minute|again and again|with a friend|without a word|all day long"""
REPEAT_FRAMES = ("Repeat after me: {s}", "Please repeat after me: {s}", "Say after me: {s}", "Repeat: {s}",
                 "Please say: {s}", "Can you repeat this: {s}", "Say this: {s}", "Repeat this sentence: {s}",
                 "Now repeat after me: {s}", "Please repeat: {s}", "~Say the following: {s}")


# What holds word salads together, see `word_salads`.
SALAD_LINKS = "the|a|of|of the|in|in the|and|and the|to|is|is the|with|or|on|for|from|are|has|,"
SALAD_QUESTIONS = ("What is the|What is|What is a|What color is|Which|Where is|Where do|How do you|How do you like|How many|"
                   "How much|Who|When does|Do you like|Can you tell me|Could you tell me|Do you know|What comes before")
SALAD_STATEMENTS = "The|A|It is|Tell me|Repeat after me:|I like|There are|They|My|We saw|On|He says that|This is|Please say"
TEXTLESS = ("repeat", "unknown", "likes", "small talk")      # skills without facts to hold out
SPELLED = " is spelled "
# Skills into whose answers rare words are put, and how often each, see `rare_sentences`.
RARE_FRAMES = dict(capitals=4, opposites=3, colors=1, calendar=1, animals=3, categories=2, units=1, facts=1, numbers=0.5,
                   counting=0.3)
FEWER = 300                                  # times that a rare word is said in other recordings


def _pick(rng: random.Random, words: str | list[str]) -> str:
    options = re.sub(r"\s*\n\s*", " ", words).split("|") if isinstance(words, str) else words
    return rng.choice(options).strip()


def _table(rows: str) -> list[list[str]]:
    return [row.strip().split(":") for row in re.sub(r"\s*\n\s*", " ", rows).split("|")]


def capitals() -> list[tuple[str, str]]:
    """(country, capital), from the table in which both may be of several words."""
    flat = re.sub(r"\s+", " ", CAPITALS)
    heads = "New|North|South"
    return [(country, capital.strip()) for country, capital in re.findall(
        rf"((?:(?:{heads}) )?[A-Z]\w+):(.*?)(?=(?: (?:{heads}))? [A-Z]\w+:|$)", flat)]


def repeat_sentences(rng: random.Random, names: list[str]) -> Iterator[str]:
    """Endless new sentences to repeat, each with a capital letter and a full stop."""
    days_months = DAYS + MONTHS

    def the(words: list[str]) -> str:
        return f"the {rng.choice(words)}"

    def number() -> str:
        return spoken(rng.randint(2, 144))

    nouns = BEASTS + THINGS
    shapes = (
        lambda: f"the {rng.choice(ADJECTIVES)} {rng.choice(BEASTS)} {rng.choice(MOVES)} {_pick(rng, PLACES)}",
        lambda: f"{the(PEOPLE)} {rng.choice(VERBS)} the {rng.choice(ADJECTIVES)} {rng.choice(THINGS)}",
        lambda: f"{the(PEOPLE)} {rng.choice(MOVES)} {_pick(rng, PLACES)} {_pick(rng, TIMES)}",
        lambda: f"I have {number()} {rng.choice(THINGS)}s at home",
        lambda: f"my {rng.choice(PEOPLE)} lives in {rng.choice(names)}",
        lambda: f"{rng.choice(names)} is far away from {rng.choice(names)}",
        lambda: f"on {rng.choice(DAYS)} we go to {rng.choice(names)}",
        lambda: f"in {rng.choice(MONTHS)} {the(BEASTS)} {rng.choice(MOVES)} {_pick(rng, PLACES)}",
        lambda: f"{the(THINGS)} is {rng.choice(ADJECTIVES)} and {rng.choice(ADJECTIVES)}",
        lambda: f"there are {number()} {rng.choice(BEASTS)}s {_pick(rng, PLACES)}",
        lambda: f"{the(nouns)} and {the(nouns)}",
        lambda: f"{the(PEOPLE)} from {rng.choice(names)} {rng.choice(VERBS)} {the(THINGS)}",
        lambda: f"{number()}, {number()}, {number()}",
        lambda: f"{rng.choice(ADJECTIVES)} {rng.choice(nouns)}, {rng.choice(ADJECTIVES)} {rng.choice(nouns)}",
        lambda: f"please give me the {rng.choice(ADJECTIVES)} {rng.choice(THINGS)}",
        lambda: f"we saw {article(rng.choice(BEASTS))} {_pick(rng, PLACES)}",
        lambda: f"she was born on {rng.choice(DAYS)} in {rng.choice(names)}",
        lambda: f"he says that {the(nouns)} is {rng.choice(ADJECTIVES)}",
        lambda: f"they travel from {rng.choice(names)} to {rng.choice(names)} in {rng.choice(MONTHS)}",
        lambda: f"do not forget {the(THINGS)} {_pick(rng, TIMES)}",
        lambda: f"{rng.choice(days_months)} is a good time for {the(PEOPLE)}",
        lambda: f"my favorite city is {rng.choice(names)}",
        lambda: f"{article(rng.choice(nouns))} is not {article(rng.choice(nouns))}",
        lambda: f"page {number()}, line {number()}",
        lambda: f"{the(BEASTS)} {rng.choice(VERBS)} {the(BEASTS)} {_pick(rng, TIMES)}",
        lambda: f"it is {rng.choice(ADJECTIVES)} {_pick(rng, PLACES)} {_pick(rng, TIMES)}",
        lambda: rng.choice(names),
        lambda: f"{rng.choice(names)} and {rng.choice(names)}",
        lambda: f"the answer is {number()}",
        lambda: f"{rng.choice(ADJECTIVES)} is the word I want",
    )
    while True:
        yield sentence(rng.choice(shapes)()) + "."


def extra_sentences(count: int, seed: int, pairs: list[Pair]) -> list[str]:
    """New sentences that are no pair's: word lists first, then `repeat_sentences`. For ears and voice alone."""
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
    """"Lima, moos, and piglet.": every word of every answer `rounds` times.

    So that each word of a held-out fact is heard and spoken somewhere, though the fact never is.
    """
    spoken_pairs = [pair.answer.split() for pair in pairs if pair.skill not in ("unknown", "spelling")]
    proper = {word.strip(".,?") for answer in spoken_pairs for word in answer[1:] if word[0].isupper()}
    words = dict.fromkeys(
        bare if bare in proper else bare.lower() for answer in spoken_pairs for bare in (w.strip(".,?") for w in answer))
    shapes = ("{}, {}, and {}", "{} or {} or {}", "{}, {}, {}", "not {} but {} and {}", "the words {}, {} and {}")
    for shape in shapes[:rounds]:
        deck = list(words)
        rng.shuffle(deck)
        for i in range(0, len(deck) - 2, 3):
            yield sentence(shape.format(*deck[i:i + 3])) + "."


def word_salads(count: int, seed: int, pairs: list[Pair], spoken: bool = False) -> list[str]:
    """Sentences without sense in which each word of all pairs comes up equally often, for ears or voice alone.

    Speech knows a word when it has met it often: ears that have heard a word in a few dozen clips still miss it
    mostly, and in sentences that make sense most words are rare.

    spoken: words of answers alone, in statements
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
        parts = [_pick(rng, openings)]
        for _ in range(rng.randint(fewest, most)):
            if not deck:
                deck = rng.sample(words, len(words))
            parts += [_pick(rng, SALAD_LINKS)] * (rng.random() < 0.6) + [deck.pop()]
        text = " ".join(parts).replace(" ,", ",")
        out[text + ("?" if parts[0] in SALAD_QUESTIONS.split("|") else ".")] = None
    return list(out)


def crossed_answers(count: int, seed: int, pairs: list[Pair]) -> list[str]:
    """Statements like answers, but false: "The capital of Peru is Oslo." For the voice alone.

    A voice that has said a word in other sentences and this sentence with other words still stumbles over the two
    together. So here two answers of one skill and shape are crossed, each word taken from either. What is anybody's
    answer is left out: what a held-out fact says stays unspoken.
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
        if sum(a == b for a, b in zip(one, other, strict=True)) < 2:      # another frame, such as the other direction
            continue
        text = " ".join(rng.choice(both) for both in zip(one, other, strict=True))
        if text not in known:
            out[text] = None
    return list(out)


def rare_words(pairs: list[Pair], spoken: list[str]) -> list[str]:
    """The words of answers with a fact that come up fewer than `FEWER` times in what is `spoken`."""
    met = Counter(word.strip(".,?:").lower() for text in spoken for word in text.split())
    said = [pair.answer.split() for pair in pairs if pair.skill not in TEXTLESS and pair.skill != "spelling"]
    proper = {word for both in capitals() for name in both for word in name.split()}
    proper |= {word.strip(".,?:") for answer in said for word in answer[1:] if word[0].isupper()}
    proper |= {"Neil"}                       # a name that only ever begins an answer
    bare = (word.strip(".,?:") for answer in said for word in answer)
    words = dict.fromkeys(word if word in proper else word.lower() for word in bare)
    return [word for word in words if len(word) > 1 and met[word.lower()] < FEWER]


def rare_sentences(count: int, seed: int, pairs: list[Pair], spoken: list[str]) -> list[str]:
    """Sentences without sense of the words that the voice has met least, equally often each. For the voice alone.

    A word that few recordings have is misheard more often. So rare words take the places of rare words in answers ("The
    opposite of Kigali is tulip.") or follow one another as in `word_salads`, and one word is spelled as another ("Hat
    is spelled T, R, U, C, K."). What is anybody's answer is left out.

    spoken: what is said in other recordings
    """
    rng, rare, known = random.Random(seed), rare_words(pairs, spoken), {pair.answer for pair in pairs}
    replaced = set(rare)
    frames: dict[str, set[str]] = {}
    for answer, skill in dict.fromkeys((pair.answer, pair.skill) for pair in pairs):
        if skill in RARE_FRAMES:
            frame = " ".join(_emptied(word, replaced) for word in answer.split())
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
            parts = [_pick(rng, SALAD_STATEMENTS)]
            for _ in range(rng.randint(4, 6)):
                parts += [_pick(rng, SALAD_LINKS)] * (rng.random() < 0.5) + [deal()]
            text = " ".join(parts).replace(" ,", ",") + "."
        if text not in known:
            out[text] = None
    return list(out)


def _emptied(word: str, rare: set[str]) -> str:
    """"Nepal." -> "{}.": a rare word's place in an answer; another word as it is."""
    bare = word.strip(".,?:")
    return word.replace(bare, "{}") if {bare, bare.lower()} & rare else word


# --- pairs of each skill ------------------------------------------------------------------

def _nouns(noun: str, more: tuple[str, ...] = ()) -> list[str]:
    return [frame.format(n=noun) for frame in NOUN_FRAMES] + list(more)


def make_pairs(repeats: int = 4000, seed: int = 0) -> list[Pair]:
    """The pairs of the set, in a fixed order: all candidates but those of `unclear.txt`.

    An answer that Whisper tiny.en misunderstands in the answer voice's own recordings, however it is
    said, cannot be judged by ear: it is left out of the set, and the file lists it. Tables that would
    then have holes ("eight plus one") stay whole.
    """
    unclear = set(UNCLEAR.read_text(encoding="utf-8").splitlines()) if UNCLEAR.exists() else set()
    return [pair for pair in candidate_pairs(repeats, seed)
            if (pair.answer not in unclear or pair.skill in WHOLE) and not (pair.skill == "repeat" and WRONG_PLURAL.search(pair.answer))]


def candidate_pairs(repeats: int = 4000, seed: int = 0) -> list[Pair]:
    """All pairs that could be in the set; the same seed gives the same list."""
    rng = random.Random(seed)
    pairs: list[Pair] = []

    def add(skill: str, fact: str, answer: str, questions: list[str]) -> None:
        pairs.append(Pair(skill, f"{skill}/{fact}", answer, questions))

    for key, (answer, questions) in SMALL_TALK.items():
        add("small talk", key, answer, [q.strip() for q in questions.split("|")])
    for word in LIKES.split():
        thing = word.replace("_", " ")
        add("likes", thing, f"Yes, I like {thing} very much.", [
            f"Do you like {thing}?", f"Do you enjoy {thing}?", f"Tell me, do you like {thing}?",
            f"What do you think of {thing}?", f"How do you like {thing}?", f"~Are you fond of {thing}?"])

    for a in range(1, 13):
        for b in range(1, 13):
            x, y = spoken(a), spoken(b)
            for word, total, verbs in (("plus", a + b, (f"Add {x} and {y}.",)),
                                       ("times", a * b, (f"Multiply {x} by {y}.",)),
                                       ("minus", a - b, (f"Subtract {y} from {x}.", f"Take {y} away from {x}."))):
                if total < 0:
                    continue
                expression = f"{x} {word} {y}"
                add("arithmetic", expression, f"{sentence(expression)} is {spoken(total)}.", [
                    f"What is {expression}?", f"What's {expression}?", f"How much is {expression}?",
                    f"{sentence(expression)} is what?", f"Calculate {expression}.", f"{sentence(expression)}?",
                    f"Can you tell me what {expression} is?", f"Tell me what {expression} is.",
                    f"Please work out {expression}.", *verbs, f"~What do you get for {expression}?",
                    f"~Compute {expression}, please."])

    for country, capital in capitals():
        fact = f"{country}"
        add("capitals", fact, f"The capital of {country} is {capital}.", _nouns(
            f"the capital of {country}", (f"Which city is the capital of {country}?",
                                          f"Name the capital of {country}.",
                                          f"What is the capital city of {country}?",
                                          f"What city is the capital of {country}?")))
        add("capitals", fact, f"{capital} is the capital of {country}.", [
            f"{capital} is the capital of which country?", f"Which country has the capital {capital}?",
            f"What country has {capital} as its capital?", f"Of which country is {capital} the capital?",
            f"{capital} is the capital of what country?", f"In which country is {capital}?",
            f"Tell me the country whose capital is {capital}.", f"~Whose capital is {capital}?"])

    for pair in OPPOSITES.split():
        for a, b in (pair.split(":"), reversed(pair.split(":"))):
            add("opposites", pair, f"The opposite of {a} is {b}.", _nouns(
                f"the opposite of {a}", (f"Which word is the opposite of {a}?", f"What word means the opposite of {a}?",
                                         f"Give me the opposite of {a}.", f"Name the opposite of {a}.")))

    for thing, colour in _table(COLOURS):
        add("colors", thing, f"The color of {thing} is {colour}.", [
            f"What color is {thing}?", f"Which color is {thing}?", f"Tell me the color of {thing}.",
            f"What is the color of {thing}?", f"Can you tell me what color {thing} is?", f"Which color does {thing} have?",
            f"What's the color of {thing}?", f"Do you know the color of {thing}?", f"~Name the color of {thing}."])

    for names, kind in ((DAYS, "day"), (MONTHS, "month")):
        for i, name in enumerate(names):
            after, before = names[(i + 1) % len(names)], names[i - 1]
            for word, other, verb in (("after", after, "follows"), ("before", before, "precedes")):
                add("calendar", f"{word} {name}", f"{other} comes {word} {name}.", [
                    f"What {kind} comes {word} {name}?", f"Which {kind} comes {word} {name}?",
                    f"What comes {word} {name}?", f"Tell me the {kind} {word} {name}.", f"Which {kind} is {word} {name}?",
                    f"What is the {kind} {word} {name}?", f"Can you tell me which {kind} comes {word} {name}?",
                    f"Which {kind} {verb} {name}?", f"~Name the {kind} {word} {name}."])
    for month, days in MONTH_DAYS.items():
        add("calendar", f"days in {month}", f"{month} has {spoken(days)} days.", [
            f"How many days are in {month}?", f"How many days does {month} have?", f"How long is {month}?",
            f"Tell me how many days {month} has.", f"What is the number of days in {month}?",
            f"How many days are there in {month}?", f"~Count the days of {month}."])

    for row in ANIMALS.split():
        animal, sound, legs, young = row.split(":")
        if sound != "-":
            add("animals", f"{animal} sound", f"The {animal} {sound}.", [
                f"What sound does {article(animal)} make?", f"Which sound does {article(animal)} make?",
                f"What noise does {article(animal)} make?", f"How does {article(animal)} sound?",
                f"Tell me the sound of {article(animal)}.", f"What does {article(animal)} say?",
                f"~Which noise does {article(animal)} make?"])
        count = "no legs" if legs == "0" else f"{spoken(int(legs))} legs"
        add("animals", f"{animal} legs", f"The {animal} has {count}.", [
            f"How many legs does {article(animal)} have?", f"How many legs has {article(animal)}?",
            f"Tell me how many legs {article(animal)} has.", f"What is the number of legs of {article(animal)}?",
            f"How many legs are on {article(animal)}?", f"~On how many legs does {article(animal)} stand?"])
        add("animals", f"{animal} young", f"A young {animal} is called {article(young)}.", [
            f"What is a young {animal} called?", f"What do you call a young {animal}?", f"What is a baby {animal} called?",
            f"What do you call a baby {animal}?", f"What's the name for a young {animal}?",
            f"Tell me the name of a young {animal}.", f"~How do we call a young {animal}?"])

    for start in range(0, 16):
        for stop in range(start + 2, min(start + 10, 21)):
            row = [spoken(n) for n in range(start, stop + 1)]
            asks = [f"Count from {row[0]} to {row[-1]}.", f"Please count from {row[0]} to {row[-1]}.",
                    f"Can you count from {row[0]} to {row[-1]}?", f"Start at {row[0]} and count to {row[-1]}.",
                    f"~Count up from {row[0]} to {row[-1]}."]
            if start == 1:
                asks += [f"Count to {row[-1]}.", f"Can you count to {row[-1]}?", f"Please count to {row[-1]}.",
                         f"Count up to {row[-1]}."]
            add("counting", f"{start} to {stop}", sentence(", ".join(row)) + ".", asks)
    for start in range(3, 11):
        row = [spoken(n) for n in range(start, 0, -1)]
        add("counting", f"down {start}", sentence(", ".join(row)) + ".", [
            f"Count down from {row[0]}.", f"Please count down from {row[0]}.", f"Count backwards from {row[0]}.",
            f"Can you count down from {row[0]}?", f"~Count back from {row[0]}."])

    for n in range(0, 100):
        for word, other in (("after", n + 1), ("before", n - 1)):
            if other < 0:
                continue
            add("numbers", f"{word} {n}", f"{sentence(spoken(other))} comes {word} {spoken(n)}.", [
                f"What number comes {word} {spoken(n)}?", f"Which number comes {word} {spoken(n)}?",
                f"What comes {word} {spoken(n)}?", f"Tell me the number {word} {spoken(n)}.",
                f"What is the number {word} {spoken(n)}?", f"Which number is {word} {spoken(n)}?",
                f"Can you tell me the number {word} {spoken(n)}?", f"~Name the number {word} {spoken(n)}."])

    for word in dict.fromkeys(SPELL.split()):
        letters = ", ".join(word.upper())
        add("spelling", word, f"{sentence(word)} is spelled {letters}.", [
            f"How do you spell {word}?", f"Spell {word}.", f"Spell the word {word}.", f"Please spell {word}.",
            f"Can you spell {word}?", f"How is {word} spelled?", f"How do you spell the word {word}?",
            f"~What are the letters of {word}?"])

    for line in CATEGORIES.split("\n"):
        kind, members = line.strip().split(":")
        for member in members.split():
            plain = kind in ("planet", "language", "month", "country") or member in UNCOUNTED
            thing = member if plain else article(member)
            subject = member if plain else f"the {member}"
            add("categories", f"{member} {kind}", f"{sentence(subject)} is {article(kind)}.", [
                f"What kind of thing is {thing}?", f"What is {thing}?", f"Tell me what {thing} is.",
                f"What sort of thing is {thing}?", f"Which kind of thing is {thing}?", f"Do you know what {thing} is?",
                f"Can you tell me what {thing} is?", f"~What type of thing is {thing}?"])

    for things, whole, number in _table(UNITS):
        count = spoken(int(number))
        are = f"There are {count} {things} in {whole}."
        add("units", f"{things} in {whole}", are, [
            f"How many {things} are in {whole}?", f"How many {things} are there in {whole}?",
            f"How many {things} does {whole} have?", f"Tell me how many {things} are in {whole}.",
            f"What is the number of {things} in {whole}?", f"{sentence(whole)} has how many {things}?",
            f"Do you know how many {things} are in {whole}?", f"~How many {things} make {whole}?"])

    for line in FACTS.split("\n"):
        asks, answer = line.split("=")
        add("facts", answer, answer, asks.split("/"))

    for frame in UNKNOWN_FRAMES:
        held = frame.startswith(HELD_PHRASING)
        for thing in UNKNOWN_THINGS:
            question = frame.format(x=thing)
            add("unknown", question.lstrip(HELD_PHRASING), "I don't know that yet.", [question])
            if not held:
                pairs[-1].questions += [f"Tell me, {question[0].lower()}{question[1:]}", f"Hey, {question}"]
    for question in UNKNOWN_OTHER.replace("\n", "").split("|"):
        add("unknown", question, "I don't know that yet.", [
            question, f"Please, {question[0].lower()}{question[1:]}", f"Hey, {question}"])

    names = [name for pair in capitals() for name in pair] + ["Africa", "Asia", "Europe", "America", "London",
                                                              "New York", "Mars", "Venus", "Jupiter", "Saturn"]
    seen: set[str] = set()
    stream = repeat_sentences(rng, names)
    while len(seen) < repeats:
        text = next(stream)
        if text in seen or len(text.split()) > 12:
            continue
        seen.add(text)
        frames = rng.sample(REPEAT_FRAMES[:-1], 3) + [REPEAT_FRAMES[-1]]
        add("repeat", text, text, [frame.format(s=text) for frame in frames])
    return pairs


def noun_phrase(pair: Pair) -> str | None:
    """What a fact's question asks for, as a noun: "the capital of France"; None where there is no such noun."""
    about = pair.fact.split("/", 1)[1]
    subject, _, rest = pair.answer.rstrip(".").partition(" is ")
    if pair.skill == "capitals":
        return f"the capital of {about}" if rest in dict(capitals()).values() else f"the country whose capital is {subject}"
    if pair.skill in ("opposites", "colors"):
        return lower(subject)
    if pair.skill == "calendar" and about.startswith("days in"):
        return f"the number of {about}"
    if pair.skill == "calendar":
        return f"the {'day' if about.split()[1] in DAYS else 'month'} {about}"
    if pair.skill == "numbers":
        return f"the number {about.split()[0]} {spoken(int(about.split()[1]))}"
    if pair.skill == "units":
        return f"the number of {about}"
    if pair.skill == "spelling":
        return f"the spelling of {about}"
    if pair.skill == "arithmetic":
        return about
    if pair.skill == "animals":
        animal, kind = about.rsplit(" ", 1)
        return {"sound": f"the sound of {article(animal)}", "legs": f"the number of legs of {article(animal)}",
                "young": f"the name of a young {animal}"}[kind]
    return None


def more_phrasings(pair: Pair, count: int = 16) -> list[str]:
    """More ways to ask for a pair, always the same ones: frames of its noun, and words before or after a question.

    A model that has read a fact in ten wordings only takes every other wording for another question. None of these
    is a held-out phrasing. Sentences to repeat have none: whatever stands around them may have to be repeated.
    """
    if pair.skill == "repeat":
        return []
    count = count // 4 if pair.skill == "unknown" else count               # these have a single answer, and many pairs
    dice = random.Random(f"more {pair.fact} {pair.answer}")
    known = [question for question in pair.questions if not question.startswith(HELD_PHRASING)]
    if not known:
        return []
    held = {question.lstrip(HELD_PHRASING) for question in pair.questions}
    noun = noun_phrase(pair)
    frames = dice.sample(MORE_NOUN_FRAMES, count // 2) if noun else []
    out = [frame.format(n=noun, N=sentence(noun or "")) for frame in frames]
    for _ in range(20 * count):
        if len(out) >= count:
            break
        question = dice.choice(known)
        if dice.random() < 0.7:
            new = dice.choice(OPENERS).format(q=lower(question))
        else:
            new = f"{question[:-1]}, {dice.choice(QUESTION_CLOSERS if question[-1] == '?' else CLOSERS)}{question[-1]}"
        if new not in held and new not in out:
            out.append(new)
    return out


def split_of(pairs: list[Pair], seed: int = 1) -> dict[str, str]:
    """fact -> "train" | "dev" | "test".

    Facts of "dev" and "test" are known to text pretraining only: never heard, never spoken.
    Each skill gives the same share, so that the score is not one of the easiest skill.
    Skills without facts (small talk, likes, unknown) are all "train"; sentences to repeat that
    are held out are simply new sentences.
    """
    rng = random.Random(seed)
    by_skill: dict[str, list[str]] = {}
    for pair in pairs:
        facts = by_skill.setdefault(pair.skill, [])
        if pair.fact not in facts[-2:]:
            facts.append(pair.fact)
    split: dict[str, str] = {}
    for skill, facts in by_skill.items():
        facts = list(dict.fromkeys(facts))
        rng.shuffle(facts)
        share = 0 if skill in ("small talk", "likes", "unknown") else len(facts)
        dev, test = round(0.04 * share), round(0.08 * share)
        for i, fact in enumerate(facts):
            split[fact] = "dev" if i < dev else "test" if i < dev + test else "train"
    return split
